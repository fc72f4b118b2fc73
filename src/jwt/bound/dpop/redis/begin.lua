#!lua
-- KEYS: life. ARGV: the run of the server, the caller's time in milliseconds.
-- Answers for how many milliseconds everything that was remembered is there: a server that was started again, or took another's
-- place, may have lost some of it.
local told = redis.call('TIME')
local now = told[1] * 1000 + math.floor(told[2] / 1000)
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] or redis.call('HEXISTS', KEYS[1], 'since') == 0 then
    redis.call('HSET', KEYS[1], 'run', ARGV[1], 'since', string.format('%.0f', math.max(now, tonumber(ARGV[2]))))
end
return now - tonumber(redis.call('HGET', KEYS[1], 'since'))
