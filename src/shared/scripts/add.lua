-- ARGV[2]: most entries; then ids and values. Of each: 1 added, 0 there before, 2 no room, or the tombstone that it
-- has.
local answers = {}
for at = 3, #ARGV, 2 do
  local id, value = ARGV[at], ARGV[at + 1]
  local answer = redis.call('HGET', gone, id)
  if not answer then
    if redis.call('HEXISTS', entries, id) == 1 then
      answer = 0
    elseif redis.call('HLEN', entries) >= tonumber(ARGV[2]) then
      answer = 2
    else
      redis.call('HSET', entries, id, value)
      tell('+', id, value)
      answer = 1
    end
  end
  answers[#answers + 1] = answer
end
return answers
