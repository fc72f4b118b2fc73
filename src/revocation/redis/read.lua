-- ARGV: margin, the last number that is known, how many at most, the caller's time in seconds, the life that the caller knows
-- and the highest number that it has seen of it, the name of a new life.
-- Answers the life and its last number, -1 if keys are missing, and then number and entry of what is new, in their order.
forget(tonumber(ARGV[1]), tonumber(ARGV[4]))
local kept = redis.call('HMGET', KEYS[1], 'life', 'number', 'count')
local count = tonumber(kept[3] or '0')
if redis.call('HLEN', KEYS[2]) ~= count or redis.call('ZCARD', KEYS[3]) ~= count or redis.call('ZCARD', KEYS[4]) ~= count then
    return {kept[1] or '', '-1'}
end
-- Older data of the same life came back: numbers would be given twice. By a new life everybody sees it.
if kept[1] == ARGV[5] and tonumber(kept[2] or '0') < tonumber(ARGV[6]) then
    redis.call('HSET', KEYS[1], 'life', ARGV[7])
    kept[1] = ARGV[7]
end
local answer = {kept[1] or '', kept[2] or '0'}
local new = redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
for at = 1, #new, 2 do
    answer[#answer + 1] = new[at + 1]
    answer[#answer + 1] = redis.call('HGET', KEYS[2], new[at])
end
return answer
