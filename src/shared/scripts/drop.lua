-- ARGV[2]: nothing; then ids, which hash (1: entries, 2: gone) and values. Takes out what has exactly this value.
local dropped = 0
for at = 3, #ARGV, 3 do
  local id, key = ARGV[at], KEYS[tonumber(ARGV[at + 1])]
  if redis.call('HGET', key, id) == ARGV[at + 2] then
    redis.call('HDEL', key, id)
    tell('x', id, '')
    dropped = dropped + 1
  end
end
return dropped
