-- One atomic step of the limits that processes share: the twin of steps.py, strategies/*.py and lines.py.
-- All numbers are whole and below 2^53, where doubles are exact; what is larger, the client refuses.
--
-- KEYS: last answer of the member, meta, holds of the member, members, rules; then bucket and line of each place.
-- ARGV: JSON of { number, now or 0, member, lease, rules seen, incarnation known, prefix, places, verbs, commands }.
-- Returns { now, members, version of the rules, incarnation, results, states, rules }, or { "lost" }: the data is
-- gone that this member knew, and it has to tell what it knows first.

if redis.replicate_commands then redis.replicate_commands() end  -- Redis 6 and before

local LAST, META, HOLDS, MEMBERS, RULES = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local OPEN, FOREVER = 1073741824, 4503599627370496
local MINUTE, DAY, WEEK, LONGEST = 60000, 86400000, 604800000, 34560000000
local number, given, member, lease, seen, known, prefix, places, verbs, commands = unpack(cjson.decode(ARGV[1]))

-- The answer may have been lost on its way: the same batch is not taken twice.
local last = redis.call('GET', LAST)
if last then
  local was = cmsgpack.unpack(last)
  if was[1] == number then return was[2] end
end

local clock, version, born = unpack(redis.call('HMGET', META, 'clock', 'rules', 'born'))
version = tonumber(version or 0)
if not born then
  if known ~= '' then return { 'lost' } end
  local time = redis.call('TIME')
  born = member .. time[1] .. time[2]
  redis.call('HSET', META, 'born', born)
end

local now = given
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
end
local latest = tonumber(clock or 0)
if latest > now and latest - now < MINUTE then now = latest end
if now ~= latest then redis.call('HSET', META, 'clock', string.format('%.0f', now)) end

-- strategies ----------------------------------------------------------------------------------------------------

local function up(a, b)  -- a / b, rounded up
  return (a + (-a) % b) / b
end

local S = {}

S.b = {  -- token bucket: parameters unit, leak, ceiling; state unit, debt, last
  initial = function(p) return { p[1], 0, now } end,
  leaked = function(p, s)
    if now <= s[3] then return s[2] end
    return math.max(0, s[2] - (now - s[3]) * p[2])
  end,
  take = function(p, s, amount)
    local debt = S.b.leaked(p, s) + amount * p[1]
    if debt <= p[3] then return { p[1], debt, now } end
  end,
  settle = function(p, s, taken, used)
    return { p[1], math.max(0, S.b.leaked(p, s) + (used - taken) * p[1]), now }
  end,
  keep = function(p, s) return up(s[2], p[2]) + MINUTE end,
}

S.s = {  -- sliding window: parameters most (-1: any), period, width; state total, held, slot, units, slot, units, ...
  initial = function() return { 0, 0 } end,
  leaves = function(p, slot) return (slot + 1) * p[3] + p[2] end,
  current = function(p, s)
    local total, gone = s[1], 3
    while gone < #s and S.s.leaves(p, s[gone]) <= now do
      total = total - s[gone + 1]
      gone = gone + 2
    end
    local left = { total, s[2] }
    for place = gone, #s do left[#left + 1] = s[place] end
    return left
  end,
  add = function(s, slot, units)
    local place = 3
    while place < #s and s[place] < slot do place = place + 2 end
    if s[place] == slot then
      s[place + 1] = s[place + 1] + units
      if s[place + 1] == 0 then
        table.remove(s, place)
        table.remove(s, place)
      end
    elseif units ~= 0 then
      table.insert(s, place, units)
      table.insert(s, place, slot)
    end
  end,
  take = function(p, s, amount)
    s = S.s.current(p, s)
    if p[1] >= 0 and s[1] + amount > p[1] then return end
    s[1], s[2] = s[1] + amount, s[2] + amount
    S.s.add(s, (now - now % p[3]) / p[3], amount)
    return s
  end,
  settle = function(p, s, taken, used, at)
    s = S.s.current(p, s)
    local slot, change = (at - at % p[3]) / p[3], used - taken
    if S.s.leaves(p, slot) <= now then
      slot, change = (now - now % p[3]) / p[3], math.max(0, change)
    end
    s[1], s[2] = s[1] + change, s[2] - taken
    if change ~= 0 then S.s.add(s, slot, change) end
    return s
  end,
  keep = function(p, s) return p[2] * 2 + (s[2] ~= 0 and DAY or MINUTE) end,
}

S.f = {  -- fixed window: parameters most (-1: any), period (0: calendar, -1: forever), bounds or time to keep;
         -- state start, end, used, held
  initial = function(p)
    if p[2] > 0 then
      local start = now - now % p[2]
      return { start, start + p[2], 0, 0 }
    end
    if p[2] < 0 then return { 0, FOREVER, 0, 0 } end
    local bound = 3
    while bound < #p - 1 and now >= p[bound + 1] do bound = bound + 1 end
    return { p[bound], p[bound + 1], 0, 0 }
  end,
  current = function(p, s)
    if now < s[2] then return s end
    return S.f.initial(p)
  end,
  take = function(p, s, amount)
    s = S.f.current(p, s)
    if p[1] >= 0 and s[3] + s[4] + amount > p[1] then return end
    return { s[1], s[2], s[3], s[4] + amount }
  end,
  settle = function(p, s, taken, used, at)
    s = S.f.current(p, s)
    if at >= s[1] then return { s[1], s[2], s[3] + used, s[4] - taken } end
    return { s[1], s[2], s[3] + math.max(0, used - taken), s[4] }
  end,
  keep = function(p, s)
    if p[2] < 0 then return p[3] end
    return math.max(0, s[2] - now) + MINUTE
  end,
}

S.c = {  -- concurrency: parameter most; state how many
  initial = function() return { 0 } end,
  take = function(p, s, amount)
    if s[1] + amount <= p[1] then return { s[1] + amount } end
  end,
  settle = function(_, s, taken) return { math.max(0, s[1] - taken) } end,
  keep = function(_, s) return s[1] == 0 and 0 or DAY end,
}

S.g = {  -- gate: parameter window; state closed until, window, in flight, threshold, progress, strikes, closed at
  initial = function(p) return { 0, p[1], 0, OPEN, 0, 0, 0 } end,
  with = function(s, in_flight) return { s[1], s[2], in_flight, s[4], s[5], s[6], s[7] } end,
  take = function(_, s, amount)
    if now < s[1] then return end
    if s[2] >= OPEN then return s end
    if s[3] + amount <= s[2] then return S.g.with(s, s[3] + amount) end
  end,
  settle = function(_, s, taken, _, at)
    if s[2] >= OPEN or at < s[7] then return s end
    return S.g.with(s, math.max(0, s[3] - taken))
  end,
  keep = function(p, s)
    local fresh, same = S.g.initial(p), true
    for place, value in ipairs(fresh) do same = same and s[place] == value end
    return same and 0 or math.max(0, s[1] - now) + DAY
  end,
}

-- places --------------------------------------------------------------------------------------------------------

local slots, names = {}, {}
for place = 1, 2 * #places do names[place] = KEYS[5 + place] end
local rows = #names > 0 and redis.call('MGET', unpack(names)) or {}
local newer = version > seen
for place, wanted in ipairs(places) do
  local key, kind, rev, p = unpack(wanted)
  local row, line = rows[2 * place - 1], rows[2 * place]
  local slot = { key = key, kind = kind, how = S[kind], rev = rev, p = p, fresh = not row }
  if row then
    local theirs, override, state = unpack(cmsgpack.unpack(row))
    if theirs > rev then  -- a rule was learned that this member does not know yet
      newer, slot.rev = true, theirs
      if kind == 'b' then slot.p = override else slot.p[1] = override[1] end
    end
    if kind == 'b' and state[1] ~= slot.p[1] then  -- the amount was configured anew, or is being learned
      state = { slot.p[1], up(state[2] * slot.p[1], state[1]), state[3] }
    end
    slot.state, slot.override = state, rev > theirs and p or override  -- what one has not had confirmed binds nobody
  else
    slot.state, slot.override = slot.how.initial(slot.p), rev > 0 and p or false
  end
  if line then
    slot.line = cmsgpack.unpack(line)
    for name, ticket in pairs(slot.line[4]) do
      if ticket[6] <= now then slot.line[4][name] = nil end
    end
  end
  slots[place] = slot
end

local rules = newer and redis.call('HGETALL', RULES) or {}

local function put(slot, state)
  if state == slot.state then return end  -- an open gate
  slot.state, slot.changed, slot.fresh = state, true, false
end

-- lines ---------------------------------------------------------------------------------------------------------
-- { virtual clock, arrivals, flow -> its next start, member -> { waiter, rank, start, arrival, amount, gone at } }

local function before(a, rank, start, arrival)
  if a[2] ~= rank then return a[2] < rank end
  if a[3] ~= start then return a[3] < start end
  return a[4] < arrival
end

local function ahead(slot, rank, standing)
  if not slot.line then return 0 end
  local own = standing and slot.line[4][member]
  local start, arrival = own and own[3] or math.huge, own and own[4] or 0
  local units = 0
  for name, ticket in pairs(slot.line[4]) do
    if name ~= member and before(ticket, rank, start, arrival) then units = units + ticket[5] end
  end
  return units
end

local function out(slot, served)
  local line = slot.line
  if not line then return end
  local ticket = line[4][member]
  line[4][member] = nil
  slot.moved, slot.freed = true, true
  if ticket and served then
    line[1] = math.max(line[1], ticket[3])
    for flow, start in pairs(line[3]) do
      if start <= line[1] then line[3][flow] = nil end
    end
  end
end

-- commands ------------------------------------------------------------------------------------------------------

local function lasting(slot)  -- whether the member's death would hold something for ever
  local kind = slot.kind
  return kind == 'c' or kind == 'f' or (kind == 's' and slot.p[4] == 1) or (kind == 'g' and slot.state[2] < OPEN)
end

local C, records = {}, {}  -- records of holds: nobody settles one in the batch that takes it

function C.reserve(hold, rank, standing, wanted)
  local fits, units, states = true, {}, {}
  for number, pair in ipairs(wanted) do
    local slot, amount = slots[pair[1] + 1], pair[2]
    local first = ahead(slot, rank, pair[1] == standing)
    local state = slot.how.take(slot.p, slot.state, amount)
    fits = fits and state ~= nil and (first == 0 or slot.how.take(slot.p, slot.state, amount + first) ~= nil)
    units[number], states[number] = first, state
  end
  if not fits then return units end
  local shares = {}
  for number, pair in ipairs(wanted) do
    local slot = slots[pair[1] + 1]
    put(slot, states[number])
    if lasting(slot) then shares[#shares + 1] = { slot.key, slot.kind, pair[2] } end
  end
  if standing >= 0 then out(slots[standing + 1], true) end
  if #shares == 0 then return 0 end
  records[#records + 1] = string.format('%.0f', hold)
  records[#records + 1] = cmsgpack.pack({ now, shares })
  return 1
end

function C.correct(at, changes)
  for _, pair in ipairs(changes) do
    local slot = slots[pair[1] + 1]
    slot.freed = true
    put(slot, slot.how.settle(slot.p, slot.state, 0, pair[2], at))
  end
  return 0
end

function C.settle(hold, kept, at, changes)
  if kept and redis.call('HDEL', HOLDS, string.format('%.0f', hold)) == 0 then
    for _, triple in ipairs(changes) do triple[2] = triple[3] - triple[2] end  -- its member was taken for dead
    return C.correct(at, changes)
  end
  for _, triple in ipairs(changes) do
    local slot = slots[triple[1] + 1]
    slot.freed = true
    put(slot, slot.how.settle(slot.p, slot.state, triple[2], triple[3], at))
  end
  return 0
end

function C.stand(place, waiter, rank, flow, weight, amount, time)
  local slot = slots[place + 1]
  local line = slot.line or { 0, 0, {}, {} }
  local ticket = line[4][member]
  if not ticket or ticket[1] ~= waiter then
    line[2] = line[2] + 1
    local start = math.max(line[1], line[3][flow] or 0)
    line[3][flow] = start + math.max(1, weight)
    ticket = { waiter, 0, start, line[2], 0, 0 }
  end
  ticket[2], ticket[5], ticket[6] = rank, amount, now + time
  line[4][member] = ticket
  slot.line, slot.moved = line, true
  return ahead(slot, rank, true)
end

function C.leave(place)
  out(slots[place + 1], false)
  return 0
end

function C.write(place, expected, rev, p, state, rule)
  local slot = slots[place + 1]
  if not slot.fresh then
    if slot.rev ~= places[place + 1][3] then return 0 end
    for index, value in ipairs(slot.state) do
      if expected[index] ~= value then return 0 end
    end
    if #expected ~= #slot.state then return 0 end
  end
  slot.freed = true
  put(slot, state)
  if rule ~= '' then
    slot.rev, slot.override = rev, p
    if slot.kind == 'b' then slot.p = p else slot.p[1] = p[1] end
    version = version + 1
    redis.call('HSET', META, 'rules', version)
    redis.call('HSET', RULES, slot.key, rule)
  end
  return 1
end

-- the dead ------------------------------------------------------------------------------------------------------

local function charged(kind, s, amount, at)
  if kind == 'c' then
    s[1] = math.max(0, s[1] - amount)
  elseif kind == 'f' then
    if at >= s[1] then s[3], s[4] = s[3] + amount, s[4] - amount end
  elseif kind == 's' then
    s[2] = math.max(0, s[2] - amount)
  elseif at >= s[7] then
    s[3] = math.max(0, s[3] - amount)
  end
end

local function bury(dead)
  local theirs = prefix .. 'holds:' .. dead
  local held = redis.call('HVALS', theirs)
  for _, packed in ipairs(held) do
    local at, shares = unpack(cmsgpack.unpack(packed))
    for _, share in ipairs(shares) do
      local key, kind, amount = unpack(share)
      local here = nil
      for _, slot in ipairs(slots) do
        if slot.key == key then here = slot end
      end
      if here then
        charged(kind, here.state, amount, at)
        here.changed, here.freed = true, true
      else
        local name = prefix .. 'bucket:' .. key
        local row = redis.call('GET', name)
        if row then
          row = cmsgpack.unpack(row)
          charged(kind, row[3], amount, at)
          redis.call('SET', name, cmsgpack.pack(row), 'KEEPTTL')
        end
      end
    end
  end
  redis.call('DEL', theirs)
  redis.call('ZREM', MEMBERS, dead)
end

for _, dead in ipairs(redis.call('ZRANGEBYSCORE', MEMBERS, '-inf', '(' .. string.format('%.0f', now), 'LIMIT', 0, 16)) do
  bury(dead)
end

-- all of it -----------------------------------------------------------------------------------------------------

local results = {}
for place, command in ipairs(commands) do
  results[place] = C[verbs[place]](unpack(command))
end
if #records > 0 then
  redis.call('HSET', HOLDS, unpack(records))
  redis.call('PEXPIRE', HOLDS, WEEK)
end

local function wake(slot)  -- the first in line whose turn has come, unless it is our own, which looks by itself
  local order = {}
  for name, ticket in pairs(slot.line[4]) do order[#order + 1] = { name, ticket } end
  table.sort(order, function(a, b) return before(a[2], b[2][2], b[2][3], b[2][4]) end)
  for place, entry in ipairs(order) do
    local name, ticket = entry[1], entry[2]
    if (place == 1 and name == member) or not slot.how.take(slot.p, slot.state, ticket[5]) then return end
    if redis.call('PUBLISH', prefix .. 'wake:' .. name, slot.key) > 0 then
      for gone = 1, place - 1 do  -- nobody heard those: they are dead, and block the way; else they come back
        slot.line[4][order[gone][1]], slot.moved = nil, true
      end
      return
    end
  end
end

local states = {}
for place, slot in ipairs(slots) do
  local bucket, line = KEYS[4 + 2 * place], KEYS[5 + 2 * place]
  if slot.changed then
    local time = slot.how.keep(slot.p, slot.state)
    if time > 0 then
      redis.call('SET', bucket, cmsgpack.pack({ slot.rev, slot.override, slot.state }), 'PX', string.format('%.0f', time))
    elseif not slot.fresh then
      redis.call('DEL', bucket)
    end
  end
  if slot.line and slot.freed then wake(slot) end
  if slot.moved then
    if next(slot.line[4]) then
      redis.call('SET', line, cmsgpack.pack(slot.line), 'PX', DAY)
    else
      redis.call('DEL', line)
    end
  end
  states[place] = { slot.rev, unpack(slot.state) }
end

redis.call('ZADD', MEMBERS, string.format('%.0f', now + lease), member)
local answer = { now, redis.call('ZCARD', MEMBERS), version, born, results, states, rules }
redis.call('SET', LAST, cmsgpack.pack({ number, answer }), 'PX', MINUTE)
return answer
