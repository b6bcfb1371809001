-- Claim a key until a time: 1 for one caller alone.
-- KEYS: the key. ARGV: epoch milliseconds until when, and of now; milliseconds to keep it.
if tonumber(redis.call('GET', KEYS[1]) or 0) > tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return 1
