-- ARGV[2]: for how many seconds a removal is remembered; then ids. Forgets those of them that are over, by the store's
-- clock.
local now = tonumber(redis.call('TIME')[1])
local function moment(key, id)
  local value = redis.call('HGET', key, id)
  return value and tonumber(string.match(value, '^(%d+):'))
end
local forgotten = 0
for at = 3, #ARGV do
  local id = ARGV[at]
  local expires, removed = moment(entries, id), moment(gone, id)
  if expires and expires > 0 and expires <= now then
    redis.call('HDEL', entries, id)
    tell('x', id, '')
    forgotten = forgotten + 1
  elseif removed and removed + tonumber(ARGV[2]) <= now then
    redis.call('HDEL', gone, id)
    tell('x', id, '')
    forgotten = forgotten + 1
  end
end
return forgotten
