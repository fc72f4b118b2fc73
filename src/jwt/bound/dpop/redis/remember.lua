#!lua
-- KEYS: life, the proofs of one key. All times are in milliseconds.
-- ARGV: id, end, the caller's time, how long one is kept beyond its end, how long before its end a proof may have been used
--   first, how many of one key, how far ahead of the server's clock the caller's may be.
-- Answers 0 (used before), 1 (new, and remembered), 2 (too many of its key), 3 (it may be forgotten, and for how long everything
--   is remembered), 4 (it has ended by the server's clock, and which time that is) or 5 (the caller's clock is too far ahead).
local told = redis.call('TIME')
local now = told[1] * 1000 + math.floor(told[2] / 1000)
local ends, kept, most = tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[6])
local caller, skew = tonumber(ARGV[3]), tonumber(ARGV[7])
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then
    return {0, 0}
end
if caller > now + skew then
    return {5, now}
end
if ends <= now then
    return {4, now}
end
local since = tonumber(redis.call('HGET', KEYS[1], 'since') or '')
-- See begin.lua.
if not since or since > now + skew then
    since = math.max(now, caller)
    redis.call('HSET', KEYS[1], 'since', string.format('%.0f', since))
end
if since + tonumber(ARGV[5]) >= ends then
    return {3, now - since}
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now - kept))
-- What has ended and is kept counts as well: proofs that end at once would fill the memory. Whoever never has more than the
-- bound that could be used again, at a steady pace, keeps fewer than twice as many.
if redis.call('ZCOUNT', KEYS[2], string.format('(%.0f', now), '+inf') >= most
    or redis.call('ZCOUNT', KEYS[2], '-inf', '+inf') >= 2 * most + 16 then
    return {2, 0}
end
redis.call('ZADD', KEYS[2], string.format('%.0f', ends), ARGV[1])
if redis.call('PTTL', KEYS[2]) < ends + kept - now then
    redis.call('PEXPIREAT', KEYS[2], string.format('%.0f', ends + kept))
end
return {1, 0}
