-- ARGV[2]: most tombstones; then ids, moments (0: now) and what is sealed. Of each: 1 removed, 0 there before, 2 no
-- room.
local now = tonumber(redis.call('TIME')[1])
local answers = {}
for at = 3, #ARGV, 3 do
  local id, moment = ARGV[at], tonumber(ARGV[at + 1])
  local answer = 0
  if redis.call('HEXISTS', gone, id) == 0 then
    if redis.call('HLEN', gone) >= tonumber(ARGV[2]) then
      answer = 2
    else
      -- A clock that is ahead would have it remembered for longer.
      if moment == 0 or moment > now then moment = now end
      local value = string.format('%.0f', moment) .. ':' .. ARGV[at + 2]
      redis.call('HDEL', entries, id)
      redis.call('HSET', gone, id, value)
      tell('-', id, value)
      answer = 1
    end
  end
  answers[#answers + 1] = answer
end
return answers
