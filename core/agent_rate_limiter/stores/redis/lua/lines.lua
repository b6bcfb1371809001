-- Who waits for a limit, in order: the twin of lines.py. Read before step.lua.
--
-- { virtual clock, arrivals, flow -> its next start, member -> { waiter, rank, start, arrival, amount, gone at } }

local function before(a, rank, start, arrival)
  if a[2] ~= rank then return a[2] < rank end
  if a[3] ~= start then return a[3] < start end
  return a[4] < arrival
end

local MOST_FLOWS = 256

local function prune(line, now)  -- those who did not come back in time; whether there were any
  local some = false
  for name, ticket in pairs(line[4]) do
    if ticket[6] <= now then
      line[4][name] = nil
      some = true
    end
  end
  return some
end

local function advance(line, to)  -- virtual time goes on; flows that it has overtaken begin afresh
  line[1] = math.max(line[1], to)
  for flow, start in pairs(line[3]) do
    if start <= line[1] then line[3][flow] = nil end
  end
end

local function forget(line)  -- where more flows come than come back, virtual time would stand still
  local flows, first = 0, math.huge
  for _, start in pairs(line[3]) do flows, first = flows + 1, math.min(first, start) end
  if flows > MOST_FLOWS then advance(line, first) end
end

local function ahead(line, member, rank, standing)  -- units of those who go before
  if not line then return 0 end
  local own = standing and line[4][member]
  local start, arrival = own and own[3] or math.huge, own and own[4] or 0
  local units = 0
  for name, ticket in pairs(line[4]) do
    if name ~= member and before(ticket, rank, start, arrival) then units = units + ticket[5] end
  end
  return units
end

local function stand(line, member, waiter, rank, flow, weight, amount, gone_at)
  line = line or { 0, 0, {}, {} }
  local ticket = line[4][member]
  if not ticket or ticket[1] ~= waiter then
    line[2] = line[2] + 1
    local start = math.max(line[1], line[3][flow] or 0)
    line[3][flow] = start + math.max(1, weight)
    ticket = { waiter, 0, start, line[2], 0, 0 }
    forget(line)
  end
  ticket[2], ticket[5], ticket[6] = rank, amount, gone_at
  line[4][member] = ticket
  return line
end

local function leave(line, member, served)
  local ticket = line[4][member]
  line[4][member] = nil
  if ticket and served then advance(line, ticket[3]) end
end

local function in_order(line)  -- { member, ticket } of each
  local order = {}
  for name, ticket in pairs(line[4]) do order[#order + 1] = { name, ticket } end
  table.sort(order, function(a, b) return before(a[2], b[2][2], b[2][3], b[2][4]) end)
  return order
end
