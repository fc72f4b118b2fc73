-- Takes draws, one after the other: each from all of its counts, or from none. A count is a string: the moment at which its
-- quota is whole again, in microseconds since the Unix epoch.
--
-- KEYS: the counts, each once.
-- ARGV: how many milliseconds a key outlives its debt, then for each draw
--   what is done (take, count: take also if refused, give: give back), the time ('' for the server's),
--   how many at least, how many at most, how many counts, and for each of those: its key's index, the microseconds in which
--   one comes back, the burst, the longest debt that is believed.
-- Returns four integers for each draw: how many were taken (0: refused, -1: a key holds something else), which count that is
--   about, how many are left, and the microseconds until it is whole (taken) or until it would be granted (refused).
--
-- Redis does nothing else meanwhile: all keys are read at once, tables are made once for all draws, and numbers, which are whole,
-- go to Redis as they are. A call has no more keys than the stack has room for (`ask::MOST` draws of eight).
local JUMP = 60000000
local BEYOND = 9007199254740992
local call, tonumber, floor, max, min = redis.call, tonumber, math.floor, math.max, math.min
local KEYS, ARGV = KEYS, ARGV

local outlives = tonumber(ARGV[1])
local server_time
local kept, changed, newest = call('MGET', unpack(KEYS)), {}, {}
for key = 1, #KEYS do
  local raw = kept[key]
  -- What is not there and what is no string look alike so far.
  local tat = raw and tonumber(raw) or redis.pcall('GET', KEYS[key]) == false and 0
  kept[key] = tat and tat >= 0 and tat < BEYOND and tat
end

local function server_now()
  if not server_time then
    local told = call('TIME')
    server_time = told[1] * 1000000 + told[2]
  end
  return server_time
end

local function keep(key, tat, now)
  if kept[key] ~= tat then
    kept[key], changed[key] = tat, true
  end
  newest[key] = now
end

local answers, answered = {}, 0
local function answer(taken, count, left, micros)
  answers[answered + 1], answers[answered + 2] = taken, count - 1
  answers[answered + 3], answers[answered + 4] = left, micros
  answered = answered + 4
end

-- Of the draw at hand.
local keys, intervals, capacities = {}, {}, {}
local at, last = 2, #ARGV
while at < last do
  local what, now = ARGV[at], ARGV[at + 1]
  now = now ~= '' and tonumber(now) or server_now()
  local least, most, counts = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  at = at + 5
  local corrupt, refused, units = nil, false, most
  for count = 1, counts do
    local key, interval = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    local capacity, longest = interval * ARGV[at + 2], ARGV[at + 3]
    at = at + 4
    keys[count], intervals[count], capacities[count] = key, interval, capacity
    local tat = kept[key]
    if not tat then
      corrupt = corrupt or count
    else
      -- A debt of more than that was run up on another clock, or under a quota that is no more.
      if tat > now + longest + JUMP then
        tat = now + capacity
        keep(key, tat, now)
      end
      local room = tat > now and capacity - (tat - now) or capacity
      refused = refused or interval * least > room
      units = min(units, floor(room / interval))
    end
  end

  if corrupt then
    answer(-1, corrupt, 0, 0)
  elseif what == 'give' then
    for count = 1, counts do
      local key = keys[count]
      local tat = kept[key]
      keep(key, max(min(tat, now), tat - most * intervals[count]), now)
    end
    answer(most, 1, 0, 0)
  elseif not refused then
    units = max(units, least)
    local tightest, fewest, reset
    for count = 1, counts do
      local key, interval = keys[count], intervals[count]
      local debt = max(kept[key] - now, 0) + units * interval
      keep(key, now + debt, now)
      local left = floor((capacities[count] - debt) / interval)
      if not fewest or left < fewest then
        tightest, fewest, reset = count, left, debt
      end
    end
    answer(units, tightest, fewest, reset)
  else
    local longest, wait
    for count = 1, counts do
      local price, tat = least * intervals[count], kept[keys[count]]
      if what == 'count' then
        tat = max(tat, min(max(tat, now) + price, now + capacities[count]))
        keep(keys[count], tat, now)
      end
      local retry = max(tat - now, 0) + price - capacities[count]
      if not wait or retry > wait then
        longest, wait = count, retry
      end
    end
    answer(0, longest, 0, max(wait, 1))
  end
end

for key in pairs(changed) do
  local debt = kept[key] - newest[key]
  if debt > 0 then
    call('SET', KEYS[key], kept[key], 'PX', math.ceil(debt / 1000) + outlives)
  else
    call('DEL', KEYS[key])
  end
end
return answers
