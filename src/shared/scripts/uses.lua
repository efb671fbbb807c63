-- KEYS[1]: how many uses were given out; ARGV: of how many in all, how many were as far as the asker knows, how many
-- are wanted, and for how many seconds that is remembered. Answers: how many are given, and how many were in all.
local all, known, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local given = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), known)
local units = math.max(math.min(all - given, wanted), 0)
redis.call('SET', KEYS[1], string.format('%.0f', given + units), 'EX', ARGV[4])
return { units, given + units }
