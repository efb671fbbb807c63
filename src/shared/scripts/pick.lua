-- KEYS: entries, gone; ARGV: ids. Of each the value of its entry, and of its tombstone; empty for none.
local values = {}
for at = 1, #ARGV do
  values[#values + 1] = redis.call('HGET', KEYS[1], ARGV[at]) or ''
  values[#values + 1] = redis.call('HGET', KEYS[2], ARGV[at]) or ''
end
return values
