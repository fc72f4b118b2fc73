#!lua
-- KEYS: life, the proofs of one key. All times are in milliseconds.
-- ARGV: id, end, the caller's time, how long one is kept beyond its end, how long before its end a proof may have been used
--   first, how many of one key.
-- Answers 0 (used before), 1 (new, and remembered), 2 (too many of its key), 3 (it may be forgotten, and for how long that is
--   so for a proof that is made now) or 4 (it has ended by the server's clock, and which time that is).
local told = redis.call('TIME')
local now = told[1] * 1000 + math.floor(told[2] / 1000)
local ends, kept = tonumber(ARGV[2]), tonumber(ARGV[4])
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then
    return {0, 0}
end
if ends <= now then
    return {4, now}
end
local since = tonumber(redis.call('HGET', KEYS[1], 'since') or '')
if not since then
    since = math.max(now, tonumber(ARGV[3]))
    redis.call('HSET', KEYS[1], 'since', string.format('%.0f', since))
end
local missing = since + tonumber(ARGV[5]) - ends
if missing >= 0 then
    return {3, missing + 1}
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now - kept))
if redis.call('ZCOUNT', KEYS[2], string.format('(%.0f', now), '+inf') >= tonumber(ARGV[6]) then
    return {2, 0}
end
redis.call('ZADD', KEYS[2], string.format('%.0f', ends), ARGV[1])
if redis.call('PTTL', KEYS[2]) < ends + kept - now then
    redis.call('PEXPIREAT', KEYS[2], string.format('%.0f', ends + kept))
end
return {1, 0}
