-- KEYS: state, entries, ends, order. What has ended is forgotten, a thousand at a time: by the server's clock and by the caller's,
-- whichever is behind. One clock that is wrong deletes nothing for good. Answers the second before which an end is past.
local function forget(margin, callers)
    local before = math.min(tonumber(redis.call('TIME')[1]), callers) - margin
    local ended = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '(' .. string.format('%.0f', before), 'LIMIT', 0, 1000)
    if #ended > 0 then
        redis.call('HDEL', KEYS[2], unpack(ended))
        redis.call('ZREM', KEYS[3], unpack(ended))
        redis.call('ZREM', KEYS[4], unpack(ended))
        redis.call('HINCRBY', KEYS[1], 'count', -#ended)
    end
    return before
end
