-- The server has lost its data: a member tells what it knows, where nobody else has yet.
--
-- KEYS: meta, holds of the member, rules; then buckets.
-- ARGV: JSON of { member, version of the rules, buckets, holds, rules }: for each bucket its key, kind, revision,
-- parameters if a rule was learned, and numbers; for each hold its number, time and shares; rules by key.
local DAY, WEEK = 86400000, 604800000
local member, version, buckets, holds, rules = unpack(cjson.decode(ARGV[1]))
local META, HOLDS, RULES = KEYS[1], KEYS[2], KEYS[3]

local time = redis.call('TIME')
redis.call('HSETNX', META, 'born', member .. time[1] .. time[2])
if tonumber(redis.call('HGET', META, 'rules') or 0) < version then redis.call('HSET', META, 'rules', version) end
for key, rule in pairs(rules) do redis.call('HSETNX', RULES, key, rule) end

local names = {}
for place, bucket in ipairs(buckets) do
  local key, kind, rev, override, numbers = unpack(bucket)
  names[key] = KEYS[3 + place]
  if kind ~= 'c' then  -- slots are what calls in flight hold, and each member tells of its own
    redis.call('SET', KEYS[3 + place], cmsgpack.pack({ rev, override, numbers }), 'NX', 'PX', kind == 'f' and 400 * DAY or DAY)
  end
end

for _, hold in ipairs(holds) do
  local number, at, shares = unpack(hold)
  if redis.call('HSETNX', HOLDS, string.format('%.0f', number), cmsgpack.pack({ at, shares })) == 1 then
    for _, share in ipairs(shares) do
      local key, kind, amount = unpack(share)
      if kind == 'c' and names[key] then
        local row = redis.call('GET', names[key])
        row = row and cmsgpack.unpack(row) or { 0, false, { 0 } }
        row[3][1] = row[3][1] + amount
        redis.call('SET', names[key], cmsgpack.pack(row), 'PX', DAY)
      end
    end
  end
end
redis.call('PEXPIRE', HOLDS, WEEK)
return redis.call('HGET', META, 'born')
