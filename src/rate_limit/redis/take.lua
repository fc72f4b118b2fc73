-- Takes draws, one after the other: each from all of its counts, or from none. A count is a string: the moment at which its
-- quota is whole again, in microseconds since the Unix epoch.
--
-- KEYS: the counts, each once.
-- ARGV: how many milliseconds a key outlives its debt (0: the server's clock counts);
--   the draws, in bytes: for each its kind's index, and for each of its counts the key's index in two, the higher first;
--   then for each kind of draw
--   what is done (take, count: take also if refused, give: give back), the time ('' for the server's),
--   how many at least, how many at most, how many counts, and for each of those the microseconds in which one comes back, the
--   burst, the longest debt that is believed.
-- Returns a string, of 17 bytes for each draw: which count that is about (255: a key holds something else), how many were taken
--   (0: refused), how many are left, both in four bytes, and in eight the microseconds until it is whole (taken) or until it would
--   be granted (refused). The highest byte comes first.
--
-- Redis does nothing else meanwhile: all keys are read at once, numbers are read once for all draws of a kind, and a key is given
-- a new life once a second. A call has no more keys than the stack has room for (`ask::MOST` draws of eight).
local JUMP = 60000000
local BEYOND = 9007199254740992
-- By the server's clock a key lives until this grid's next line behind its debt: up to a second longer than it must, so that the
-- debts that end before the same line need no other life.
local GRID = 1000000
local call, pcall, tonumber, pack = redis.call, redis.pcall, tonumber, struct.pack
local KEYS, ARGV = KEYS, ARGV

local outlives = tonumber(ARGV[1])
local told = call('TIME')
local server_time = told[1] * 1000000 + told[2]

local stored, kept, newest, missing = call('MGET', unpack(KEYS)), {}, {}, {}
for key = 1, #KEYS do
  local tat = tonumber(stored[key] or 0)
  if not stored[key] then
    missing[#missing + 1] = KEYS[key]
  end
  tat = tat and tat >= 0 and tat < BEYOND and tat
  stored[key], kept[key] = tat, tat
end
-- What is not there and what is no string look alike so far.
if #missing > 0 and pcall('EXISTS', unpack(missing)) ~= 0 then
  for key = 1, #KEYS do
    if stored[key] == 0 and type(pcall('GET', KEYS[key])) == 'table' then
      stored[key], kept[key] = false, false
    end
  end
end

local kinds, at = {}, 3
while at < #ARGV do
  local now, least, counts = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 4])
  now = now ~= '' and tonumber(now) or server_time
  local intervals, capacities, believed = {}, {}, {}
  local kind = { ARGV[at], now, least, tonumber(ARGV[at + 3]), counts, intervals, capacities, believed }
  at = at + 5
  for count = 1, counts do
    intervals[count] = tonumber(ARGV[at])
    capacities[count] = intervals[count] * ARGV[at + 1]
    -- A debt of more than that was run up on another clock, or under a quota that is no more.
    believed[count] = now + ARGV[at + 2] + JUMP
    at = at + 3
  end
  kinds[#kinds + 1] = kind
end

local draws, answers, keys = { string.byte(ARGV[2], 1, -1) }, {}, {}
at = 1
while draws[at] do
  local kind = kinds[draws[at]]
  local what, now, least, most, counts = kind[1], kind[2], kind[3], kind[4], kind[5]
  local intervals, capacities, believed = kind[6], kind[7], kind[8]
  local corrupt, refused, units = nil, false, most
  for count = 1, counts do
    local key, interval, capacity = draws[at + 1] * 256 + draws[at + 2], intervals[count], capacities[count]
    at = at + 2
    keys[count] = key
    local tat = kept[key]
    if not tat then
      corrupt = corrupt or count
    else
      -- What is given back may be of a quota before, which believes less: it takes off, and forgives nothing.
      if what ~= 'give' and tat > believed[count] then
        tat = now + capacity
        kept[key], newest[key] = tat, now
      end
      local room = tat > now and capacity - (tat - now) or capacity
      refused = refused or interval * least > room
      if interval * units > room then
        units = (room - room % interval) / interval
      end
    end
  end
  at = at + 1

  local about, taken, left, micros = 255, 0, 0, nil
  if corrupt then
    micros = 0
  elseif what == 'give' then
    about, taken, micros = 0, most, 0
    for count = 1, counts do
      local key = keys[count]
      local tat = kept[key]
      kept[key], newest[key] = math.max(math.min(tat, now), tat - most * intervals[count]), now
    end
  elseif not refused then
    taken = units > least and units or least
    for count = 1, counts do
      local key, interval = keys[count], intervals[count]
      local tat = kept[key]
      local debt = (tat > now and tat - now or 0) + taken * interval
      kept[key], newest[key] = now + debt, now
      local room = capacities[count] - debt
      local fit = (room - room % interval) / interval
      if not micros or fit < left then
        about, left, micros = count - 1, fit, debt
      end
    end
  else
    for count = 1, counts do
      local key, price, tat = keys[count], least * intervals[count], kept[keys[count]]
      if what == 'count' then
        tat = math.max(tat, math.min(math.max(tat, now) + price, now + capacities[count]))
        kept[key], newest[key] = tat, now
      end
      local retry = math.max(tat - now, 0) + price - capacities[count]
      if not micros or retry > micros then
        about, micros = count - 1, retry
      end
    end
    micros = math.max(micros, 1)
  end
  -- Rounding may leave a little less than nothing.
  answers[#answers + 1] = pack('>BI4I4I8', about, taken, left > 0 and left or 0, micros)
end

-- Numbers as text, each written once.
local texts = setmetatable({}, { __index = function(texts, number)
  texts[number] = string.format('%d', number)
  return texts[number]
end })
for key = 1, #KEYS do
  local name, tat, was = KEYS[key], kept[key], stored[key]
  if tat ~= was then
    local debt = tat - newest[key]
    if debt <= 0 then
      call('DEL', name)
    elseif outlives > 0 then
      call('SET', name, tat, 'PX', math.ceil(debt / 1000) + outlives)
    -- What lives long enough is added to, unless somebody wrote the number in another way.
    elseif tat - tat % GRID ~= was - was % GRID or pcall('INCRBY', name, texts[tat - was]) ~= tat then
      call('SET', name, tat, 'PXAT', (tat - tat % GRID + GRID) / 1000)
    end
  end
end
return table.concat(answers)
