-- KEYS[1]: a hash; ARGV: the cursor, about how many, and the longest id and value that are answered, in bytes.
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
for at = 1, #page[2], 2 do
  if #page[2][at] > tonumber(ARGV[3]) or #page[2][at + 1] > tonumber(ARGV[4]) then
    return redis.error_reply('TOOLONG what is shared is longer than may be')
  end
end
return page
