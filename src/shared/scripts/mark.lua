-- KEYS: entries, gone, seq. Where the store stands: number and chain of its last change, how much it holds, and its
-- clock.
return {
  redis.call('HGET', KEYS[3], 'number') or '0',
  redis.call('HGET', KEYS[3], 'chain') or '-',
  redis.call('HLEN', KEYS[1]),
  redis.call('HLEN', KEYS[2]),
  tonumber(redis.call('TIME')[1]),
}
