-- KEYS: entries, gone, seq; ARGV[1]: the channel. A change has a number, and what it follows and what it leads to: a
-- digest of all changes up to it. So whoever hears it knows whether it missed one, also when the store lost some and
-- counted anew.
local entries, gone, seq = KEYS[1], KEYS[2], KEYS[3]
local function tell(change, id, value)
  local was = redis.call('HGET', seq, 'chain') or '-'
  local is = redis.sha1hex(was .. change .. id .. ' ' .. value)
  local number = string.format('%.0f', redis.call('HINCRBY', seq, 'number', 1))
  redis.call('HSET', seq, 'chain', is)
  redis.call('PUBLISH', ARGV[1], number .. ' ' .. was .. ' ' .. is .. ' ' .. change .. ' ' .. id .. ' ' .. value)
end
