-- ARGV: margin, id, what, issued until, end, capacity, the name of a new life, channel, the caller's time in seconds.
-- Answers 1, or 0 if there is no room.
local past = forget(tonumber(ARGV[1]), tonumber(ARGV[9]))
local issued, ends = tonumber(ARGV[4]), tonumber(ARGV[5])
local known = redis.call('HGET', KEYS[2], ARGV[2])
if known then
    local before, till = string.match(known, '^(%d+) (%d+) ')
    -- To one that has ended, and stands because there were many, nothing is added: what it met would be met again.
    if tonumber(till) >= past then
        issued, ends = math.max(issued, tonumber(before)), math.max(ends, tonumber(till))
    end
elseif tonumber(redis.call('HGET', KEYS[1], 'count') or '0') >= tonumber(ARGV[6]) then
    return 0
else
    redis.call('HINCRBY', KEYS[1], 'count', 1)
end
redis.call('HSETNX', KEYS[1], 'life', ARGV[7])
local number = redis.call('HINCRBY', KEYS[1], 'number', 1)
local entry = string.format('%.0f %.0f ', issued, ends) .. ARGV[3]
redis.call('HSET', KEYS[2], ARGV[2], entry)
redis.call('ZADD', KEYS[3], string.format('%.0f', ends), ARGV[2])
redis.call('ZADD', KEYS[4], number, ARGV[2])
-- Not what was revoked: whoever may subscribe hears it.
redis.call('PUBLISH', ARGV[8], '')
return 1
