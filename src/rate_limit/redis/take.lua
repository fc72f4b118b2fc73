-- Takes draws, one after the other: each from all of its counts, or from none. A count is a string: the moment at which its
-- quota is whole again, in microseconds since the Unix epoch.
--
-- KEYS: the counts, each once.
-- ARGV: how many milliseconds a key outlives its debt, then for each draw
--   what is done (take, count: take also if refused, give: give back), the time ('' for the server's),
--   how many at least, how many at most, how many counts, and for each of those: its key's index, the microseconds in which
--   one comes back, the burst.
-- Returns four integers for each draw: how many were taken (0: refused, -1: a key holds something else), which count that is
--   about, how many are left, and the microseconds until it is whole (taken) or until it would be granted (refused).
local JUMP = 60000000
local BEYOND = 9007199254740992

local outlives = tonumber(ARGV[1])
local server_time
local kept, changed, newest = {}, {}, {}

local function time_of(text)
  if text ~= '' then
    return tonumber(text)
  end
  if not server_time then
    local told = redis.call('TIME')
    server_time = told[1] * 1000000 + told[2]
  end
  return server_time
end

local function read(key)
  local tat = kept[key]
  if tat == nil then
    local raw = redis.pcall('GET', KEYS[key])
    if raw == false then
      tat = 0
    elseif type(raw) == 'string' then
      tat = tonumber(raw)
      tat = tat and tat >= 0 and tat < BEYOND and tat
    end
    tat = tat or false
    kept[key] = tat
  end
  return tat
end

local function keep(key, tat, now)
  if kept[key] ~= tat then
    kept[key], changed[key] = tat, true
  end
  newest[key] = now
end

local answers, at = {}, 2
local function answer(taken, count, left, micros)
  local n = #answers
  answers[n + 1], answers[n + 2], answers[n + 3], answers[n + 4] = taken, count - 1, left, micros
end

while ARGV[at] do
  local what, now = ARGV[at], time_of(ARGV[at + 1])
  local least, most, counts = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  at = at + 5
  local keys, intervals, capacities = {}, {}, {}
  local corrupt, refused, units = nil, false, most
  for count = 1, counts do
    local key, interval, burst = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    at = at + 3
    local capacity = interval * burst
    keys[count], intervals[count], capacities[count] = key, interval, capacity
    local tat = read(key)
    if not tat then
      corrupt = corrupt or count
    else
      -- A debt of more than that was run up on another clock, or under a larger quota.
      if tat > now + capacity + JUMP then
        tat = now + capacity
        keep(key, tat, now)
      end
      local room = capacity - math.max(tat - now, 0)
      refused = refused or interval * least > room
      units = math.min(units, math.floor(room / interval))
    end
  end

  if corrupt then
    answer(-1, corrupt, 0, 0)
  elseif what == 'give' then
    for count = 1, counts do
      local tat = read(keys[count])
      keep(keys[count], math.max(math.min(tat, now), tat - most * intervals[count]), now)
    end
    answer(most, 1, 0, 0)
  elseif not refused then
    units = math.max(units, least)
    local tightest, fewest, reset
    for count = 1, counts do
      local debt = math.max(read(keys[count]) - now, 0) + units * intervals[count]
      keep(keys[count], now + debt, now)
      local left = math.floor((capacities[count] - debt) / intervals[count])
      if not fewest or left < fewest then
        tightest, fewest, reset = count, left, debt
      end
    end
    answer(units, tightest, fewest, reset)
  else
    local longest, wait
    for count = 1, counts do
      local price, tat = least * intervals[count], read(keys[count])
      if what == 'count' then
        tat = math.max(tat, math.min(math.max(tat, now) + price, now + capacities[count]))
        keep(keys[count], tat, now)
      end
      local retry = math.max(tat - now, 0) + price - capacities[count]
      if not wait or retry > wait then
        longest, wait = count, retry
      end
    end
    answer(0, longest, 0, math.max(wait, 1))
  end
end

for key in pairs(changed) do
  local debt = kept[key] - newest[key]
  if debt > 0 then
    redis.call('SET', KEYS[key], string.format('%.0f', kept[key]), 'PX', string.format('%.0f', math.ceil(debt / 1000) + outlives))
  else
    redis.call('DEL', KEYS[key])
  end
end
return answers
