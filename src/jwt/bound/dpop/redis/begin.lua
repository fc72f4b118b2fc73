#!lua
-- KEYS: life. ARGV: the run of the server, the caller's time in milliseconds, how far ahead of the server's clock that may be.
-- Answers for how many milliseconds everything that was remembered is there: a server that was started again, or took another's
-- place, may have lost some of it. Answers nil, and changes nothing, if the caller's clock is too far ahead.
local told = redis.call('TIME')
local now = told[1] * 1000 + math.floor(told[2] / 1000)
local caller, skew = tonumber(ARGV[2]), tonumber(ARGV[3])
if caller > now + skew then
    return false
end
local since = tonumber(redis.call('HGET', KEYS[1], 'since') or '')
-- A date that is none, or that nobody whose clock is right has written, would shut everybody out.
if not since or since > now + skew or redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then
    since = math.max(now, caller)
    redis.call('HSET', KEYS[1], 'run', ARGV[1], 'since', string.format('%.0f', since))
end
return now - since
