-- Numbers a publication, keeps it and publishes it with its number.
-- KEYS: the room's place, its stream, what this writer has written to it, the identifier.
-- ARGV: channel, publication, writing, fresh epoch, known epoch, known offset, count, bytes, age, window.
local writing, body = tonumber(ARGV[3]), ARGV[2]
local place = redis.call('HMGET', KEYS[1], 'e', 'n', 'b')
local epoch, offset, bytes = place[1], tonumber(place[2] or 0), tonumber(place[3] or 0)
-- A Redis that has lost its latest writes has not had what a node has seen: the numbers would be given twice.
if epoch and epoch == ARGV[5] and offset < tonumber(ARGV[6]) then epoch = false end
if epoch then
  local written = redis.call('GET', KEYS[3])
  if written then
    local last, of = string.match(written, '^(%d+) (%x+)$')
    if of == epoch and tonumber(last) >= writing then
      for _, entry in ipairs(redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 512)) do
        if entry[2][4] == KEYS[3] .. ' ' .. ARGV[3] then
          return {'taken', epoch, string.match(entry[1], '^%d+')}
        end
      end
      return {'taken', epoch, '0'}
    end
  end
  if tonumber(ARGV[10]) > 0 then
    local once = redis.call('GET', KEYS[4])
    if once then
      local of, number = string.match(once, '^(%x+) (%d+)$')
      if of == epoch then return {'repeat', of, number} end
    end
  end
end
-- The first write is one that Redis refuses when it has no memory; then nothing is done.
if not epoch then
  epoch, offset, bytes = ARGV[4], 0, 0
  redis.call('HSET', KEYS[1], 'e', epoch, 'n', 0, 'b', 0)
  redis.call('DEL', KEYS[2])
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
offset = offset + 1
local number = string.format('%.0f', offset)
redis.call('XADD', KEYS[2], number .. '-0', 't', string.format('%.0f', now),
  'w', KEYS[3] .. ' ' .. ARGV[3], 'm', body)
local count = redis.call('XLEN', KEYS[2])
bytes = (count > 1 and bytes or 0) + #body
for _ = 1, 64 do
  local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
  if not oldest then break end
  local fits = count <= tonumber(ARGV[7]) and bytes <= tonumber(ARGV[8])
  if fits and oldest[2][2] + ARGV[9] > now then break end
  redis.call('XDEL', KEYS[2], oldest[1])
  count, bytes = count - 1, bytes - #oldest[2][6]
end
redis.call('HSET', KEYS[1], 'n', number, 'b', string.format('%.0f', bytes))
redis.call('PEXPIRE', KEYS[1], 604800000)
redis.call('PEXPIRE', KEYS[2], ARGV[9])
redis.call('SET', KEYS[3], ARGV[3] .. ' ' .. epoch, 'PX', 86400000)
if tonumber(ARGV[10]) > 0 then
  redis.call('SET', KEYS[4], epoch .. ' ' .. number, 'PX', ARGV[10])
end
redis.call('PUBLISH', ARGV[1],
  '{"v":2,"epoch":"' .. epoch .. '","offset":' .. number .. ',' .. string.sub(body, 2))
return {'taken', epoch, number}
