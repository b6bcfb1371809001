-- How limits count: the twin of strategies/*.py. Read before step.lua.
--
-- All numbers are whole and below 2^53, where doubles are exact; what is larger, the client refuses. A script's functions
-- are made anew whenever it runs, so those of a strategy are made when a limit needs them.
local OPEN, FOREVER = 1073741824, 4503599627370496
local MINUTE, DAY = 60000, 86400000
local max = math.max
local make, made = {}, {}

local function up(a, b)  -- a / b, rounded up
  return (a + (-a) % b) / b
end

function make.b()  -- token bucket: parameters unit, leak, ceiling; state unit, debt, last
  local function leaked(p, s, now)
    if now <= s[3] then return s[2] end
    return max(0, s[2] - (now - s[3]) * p[2])
  end
  return {
    initial = function(p, now) return { p[1], 0, now } end,
    take = function(p, s, amount, now)
      local debt = leaked(p, s, now) + amount * p[1]
      if debt <= p[3] then return { p[1], debt, now } end
    end,
    settle = function(p, s, taken, used, _, now)
      return { p[1], max(0, leaked(p, s, now) + (used - taken) * p[1]), now }
    end,
    keep = function(p, s) return up(s[2], p[2]) + MINUTE end,
  }
end

function make.s()  -- sliding window: parameters most (-1: any), period, width; state total, held, slot, units, slot, ...
  local function leaves(p, slot) return (slot + 1) * p[3] + p[2] end
  local function slot_of(p, at) return (at - at % p[3]) / p[3] end
  local function current(p, s, now)
    local total, gone = s[1], 3
    while gone < #s and leaves(p, s[gone]) <= now do
      total = total - s[gone + 1]
      gone = gone + 2
    end
    local left = { total, s[2] }
    for place = gone, #s do left[#left + 1] = s[place] end
    return left
  end
  local function add(s, slot, units)
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
  end
  return {
    initial = function() return { 0, 0 } end,
    take = function(p, s, amount, now)
      s = current(p, s, now)
      if p[1] >= 0 and s[1] + amount > p[1] then return end
      s[1], s[2] = s[1] + amount, s[2] + amount
      add(s, slot_of(p, now), amount)
      return s
    end,
    settle = function(p, s, taken, used, at, now)
      s = current(p, s, now)
      local slot, change = slot_of(p, at), used - taken
      if leaves(p, slot) <= now then slot, change = slot_of(p, now), max(0, change) end
      s[1], s[2] = s[1] + change, s[2] - taken
      if change ~= 0 then add(s, slot, change) end
      return s
    end,
    keep = function(p, s) return p[2] * 2 + (s[2] ~= 0 and DAY or MINUTE) end,
  }
end

function make.f()  -- fixed window: parameters most (-1: any), period (0: calendar, -1: forever), bounds or time to keep;
                   -- state start, end, used, held
  local function initial(p, now)
    if p[2] > 0 then
      local start = now - now % p[2]
      return { start, start + p[2], 0, 0 }
    end
    if p[2] < 0 then return { 0, FOREVER, 0, 0 } end
    local bound = 3
    while bound < #p - 1 and now >= p[bound + 1] do bound = bound + 1 end
    return { p[bound], p[bound + 1], 0, 0 }
  end
  local function current(p, s, now)
    if now < s[2] then return s end
    return initial(p, now)
  end
  return {
    initial = initial,
    take = function(p, s, amount, now)
      s = current(p, s, now)
      if p[1] >= 0 and s[3] + s[4] + amount > p[1] then return end
      return { s[1], s[2], s[3], s[4] + amount }
    end,
    settle = function(p, s, taken, used, at, now)
      s = current(p, s, now)
      if at >= s[1] then return { s[1], s[2], s[3] + used, s[4] - taken } end
      return { s[1], s[2], s[3] + max(0, used - taken), s[4] }
    end,
    keep = function(p, s, now)
      if p[2] < 0 then return p[3] end
      return max(0, s[2] - now) + MINUTE
    end,
  }
end

function make.c()  -- concurrency: parameter most; state how many
  return {
    initial = function() return { 0 } end,
    take = function(p, s, amount)
      if s[1] + amount <= p[1] then return { s[1] + amount } end
    end,
    settle = function(_, s, taken) return { max(0, s[1] - taken) } end,
    keep = function(_, s) return s[1] == 0 and 0 or DAY end,
  }
end

function make.g()  -- gate: parameter window; state closed until, window, in flight, threshold, progress, strikes, closed at
  local function initial(p) return { 0, p[1], 0, OPEN, 0, 0, 0 } end
  local function with(s, in_flight) return { s[1], s[2], in_flight, s[4], s[5], s[6], s[7] } end
  return {
    initial = initial,
    take = function(_, s, amount, now)
      if now < s[1] then return end
      if s[2] >= OPEN then return s end
      if s[3] + amount <= s[2] then return with(s, s[3] + amount) end
    end,
    settle = function(_, s, taken, _, at)
      if s[2] >= OPEN or at < s[7] then return s end
      return with(s, max(0, s[3] - taken))
    end,
    keep = function(p, s, now)
      local fresh, same = initial(p), true
      for place, value in ipairs(fresh) do same = same and s[place] == value end
      return same and 0 or max(0, s[1] - now) + DAY
    end,
  }
end

local function strategy(kind)
  local found = made[kind]
  if not found then
    found = make[kind]()
    made[kind] = found
  end
  return found
end

local function lasting(slot)  -- whether the death of who holds something of it would hold it for ever
  local kind = slot.kind
  return kind == 'c' or kind == 'f' or (kind == 's' and slot.p[4] == 1) or (kind == 'g' and slot.state[2] < OPEN)
end

local function charge(kind, s, amount, at)  -- a dead member's call, what it had taken: only slots come back
  if kind == 'c' then
    s[1] = max(0, s[1] - amount)
  elseif kind == 'f' then
    if at >= s[1] then s[3], s[4] = s[3] + amount, s[4] - amount end
  elseif kind == 's' then
    s[2] = max(0, s[2] - amount)
  elseif at >= s[7] then
    s[3] = max(0, s[3] - amount)
  end
end
