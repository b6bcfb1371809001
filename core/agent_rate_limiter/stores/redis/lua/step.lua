-- One atomic step of the limits that processes share: the twin of steps.py. Read after strategies.lua and lines.lua.
--
-- KEYS: last answer of the member, meta, holds of the member, members, rules; then bucket and line of each place.
-- ARGV: JSON of { number, now or 0, member, lease, rules seen, incarnation known, kinds, revisions, parameters, verbs,
-- commands }; kinds and verbs are a letter for each.
-- Returns { now, members, version of the rules, incarnation, results, states, rules }, or { "lost" }: the data is
-- gone that this member knew, and it has to tell what it knows first.

if redis.replicate_commands then redis.replicate_commands() end  -- Redis 6 and before

local call, pack, unpacked, format = redis.call, cmsgpack.pack, cmsgpack.unpack, string.format
local LAST, META, HOLDS, MEMBERS, RULES = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local WEEK = 604800000
local number, given, member, lease, seen, known, kinds, revs, params, verbs, commands = unpack(cjson.decode(ARGV[1]))
local prefix = string.sub(META, 1, -5)

local clock, version, born = unpack(call('HMGET', META, 'clock', 'rules', 'born'))
version = tonumber(version or 0)
if not born then
  if known ~= '' then return { 'lost' } end
  local time = call('TIME')
  born = member .. time[1] .. time[2]
  call('HSET', META, 'born', born)
end

local now = given
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
end
local latest = tonumber(clock or 0)
if latest > now and latest - now < MINUTE then now = latest end
if now ~= latest then call('HSET', META, 'clock', format('%.0f', now)) end

-- The answer may have been lost on its way: the same batch is not taken twice.
local last = call('GET', LAST)
local last_number, answered_at, answered, beaten_at = unpack(last and unpacked(last) or {})
local again = last_number == number

-- places --------------------------------------------------------------------------------------------------------

local slots = {}
local rows = #KEYS > 5 and call('MGET', unpack(KEYS, 6)) or {}
local newer = version > seen
for place, p in ipairs(params) do
  local kind, rev = string.sub(kinds, place, place), revs[place]
  local row, line = rows[2 * place - 1], rows[2 * place]
  local slot = { place = place, kind = kind, how = strategy(kind), rev = rev, p = p, fresh = not row }
  if row then
    local theirs, override, state = unpack(unpacked(row))
    if theirs > rev then  -- a rule was learned that this member does not know yet
      newer, slot.rev = true, theirs
      if kind == 'b' then slot.p = override else slot.p[1] = override[1] end
    end
    if kind == 'b' and state[1] ~= slot.p[1] then  -- the amount was configured anew, or is being learned
      state = { slot.p[1], up(state[2] * slot.p[1], state[1]), state[3] }
    end
    slot.state, slot.override = state, rev > theirs and p or override  -- what one has not had confirmed binds nobody
  else
    slot.state, slot.override = slot.how.initial(p, now), rev > 0 and p or false
  end
  if line then
    slot.line = unpacked(line)
    slot.moved = prune(slot.line, now)
  end
  slots[place] = slot
end

local rules = newer and call('HGETALL', RULES) or {}

local function key_of(slot) return string.sub(KEYS[4 + 2 * slot.place], #prefix + 8) end  -- after "bucket:"

local function put(slot, state)
  if state == slot.state then return end  -- an open gate
  slot.state, slot.changed, slot.fresh = state, true, false
end

local function out(slot, served)
  if not slot.line then return end
  leave(slot.line, member, served)
  slot.moved, slot.freed = true, true
end

-- commands ------------------------------------------------------------------------------------------------------

local records = {}  -- of holds: nobody settles one in the batch that takes it

local function reserve(wish)  -- hold, rank, place where it stands or -1; then place and amount of each
  local hold, rank, standing = wish[1], wish[2], wish[3]
  local fits, units, states = true, {}, {}
  for at = 4, #wish, 2 do
    local slot, amount = slots[wish[at] + 1], wish[at + 1]
    local first = ahead(slot.line, member, rank, wish[at] == standing)
    local state = slot.how.take(slot.p, slot.state, amount, now)
    fits = fits and state ~= nil and (first == 0 or slot.how.take(slot.p, slot.state, amount + first, now) ~= nil)
    units[#units + 1], states[at] = first, state
  end
  if not fits then return units end
  local shares = {}
  for at = 4, #wish, 2 do
    local slot = slots[wish[at] + 1]
    put(slot, states[at])
    if lasting(slot) then shares[#shares + 1] = { key_of(slot), slot.kind, wish[at + 1] } end
  end
  if standing >= 0 then out(slots[standing + 1], true) end
  if #shares == 0 then return 0 end
  records[#records + 1] = format('%.0f', hold)
  records[#records + 1] = pack({ now, shares })
  return 1
end

local function change(place, taken, used, at)
  local slot = slots[place + 1]
  slot.freed = true
  put(slot, slot.how.settle(slot.p, slot.state, taken, used, at, now))
end

local function settle(wish)  -- hold, whether it is kept, when it was taken; then place, units taken and used of each
  local charged = wish[2] and call('HDEL', HOLDS, format('%.0f', wish[1])) == 0  -- its member was taken for dead
  for at = 4, #wish, 3 do
    local place, taken, used = wish[at], wish[at + 1], wish[at + 2]
    if charged then change(place, 0, used - taken, wish[3]) else change(place, taken, used, wish[3]) end
  end
  return 0
end

local function correct(wish)  -- when it was taken; then place and change of each
  for at = 2, #wish, 2 do change(wish[at], 0, wish[at + 1], wish[1]) end
  return 0
end

local function write(place, expected, rev, p, state, rule)
  local slot = slots[place + 1]
  if not slot.fresh then
    if slot.rev ~= revs[place + 1] then return 0 end
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
    call('HSET', META, 'rules', version)
    call('HSET', RULES, key_of(slot), rule)
  end
  return 1
end

local function work_off(verb, wish)
  if verb == 'r' then return reserve(wish) end
  if verb == 's' then return settle(wish) end
  if verb == 'c' then return correct(wish) end
  if verb == 'w' then return write(unpack(wish)) end
  local slot = slots[wish[1] + 1]
  if verb == 'l' then
    out(slot, false)
    return 0
  end
  local _, waiter, rank, flow, weight, amount, time = unpack(wish)
  slot.line, slot.moved = stand(slot.line, member, waiter, rank, flow, weight, amount, now + time), true
  return ahead(slot.line, member, rank, true)
end

-- the living and the dead ---------------------------------------------------------------------------------------

local function bury(dead)
  local theirs = prefix .. 'holds:' .. dead
  for _, packed in ipairs(call('HVALS', theirs)) do
    local at, shares = unpack(unpacked(packed))
    for _, share in ipairs(shares) do
      local key, kind, amount = unpack(share)
      local name, here = prefix .. 'bucket:' .. key, nil
      for place, slot in ipairs(slots) do
        if KEYS[4 + 2 * place] == name then here = slot end
      end
      if here then
        charge(kind, here.state, amount, at)
        here.changed, here.freed = true, true
      else
        local row = call('GET', name)
        if row then
          row = unpacked(row)
          charge(kind, row[3], amount, at)
          call('SET', name, pack(row), 'KEEPTTL')
        end
      end
    end
  end
  call('DEL', theirs)
  call('ZREM', MEMBERS, dead)
end

for _, dead in ipairs(call('ZRANGEBYSCORE', MEMBERS, '-inf', '(' .. format('%.0f', now), 'LIMIT', 0, 16)) do
  bury(dead)
end
if not beaten_at or now < beaten_at or (now - beaten_at) * 32 >= lease then  -- a word now and then will do
  call('ZADD', MEMBERS, format('%.0f', now + lease), member)
  beaten_at = now
end
if number == 1 then  -- what nobody has begun to use for as long is forgotten
  for _, name in ipairs({ META, MEMBERS, RULES }) do call('PEXPIRE', name, 400 * DAY) end
end

-- all of it -----------------------------------------------------------------------------------------------------

local results = again and answered or {}
if not again then
  answered_at = now
  for place, command in ipairs(commands) do results[place] = work_off(string.sub(verbs, place, place), command) end
  if #records > 0 then
    call('HSET', HOLDS, unpack(records))
    call('PEXPIRE', HOLDS, WEEK)
  end
end

local function wake(slot)  -- the first in line whose turn has come, unless it is our own, which looks by itself
  local order = in_order(slot.line)
  for place, entry in ipairs(order) do
    local name, ticket = entry[1], entry[2]
    if (place == 1 and name == member) or not slot.how.take(slot.p, slot.state, ticket[5], now) then return end
    local heard = redis.pcall('PUBLISH', prefix .. 'wake:' .. name, key_of(slot))
    if type(heard) == 'table' then return end  -- this user must not: all that was done before has to stay done
    if heard > 0 then
      for gone = 1, place - 1 do  -- nobody heard those: they are dead, and block the way; else they come back
        slot.line[4][order[gone][1]], slot.moved = nil, true
      end
      return
    end
  end
end

local states = {}
for place, slot in ipairs(slots) do
  if slot.changed then
    local bucket, time = KEYS[4 + 2 * place], slot.how.keep(slot.p, slot.state, now)
    if time > 0 then
      call('SET', bucket, pack({ slot.rev, slot.override, slot.state }), 'PX', format('%.0f', time))
    elseif not slot.fresh then
      call('DEL', bucket)
    end
  end
  if slot.line and slot.freed then wake(slot) end
  if slot.moved then
    local line = KEYS[5 + 2 * place]
    if next(slot.line[4]) then
      call('SET', line, pack(slot.line), 'PX', DAY)
    else
      call('DEL', line)
    end
  end
  states[place] = { slot.rev, unpack(slot.state) }
end

call('SET', LAST, pack({ number, answered_at, results, beaten_at }), 'PX', MINUTE)
return { answered_at, call('ZCARD', MEMBERS), version, born, results, states, rules }
