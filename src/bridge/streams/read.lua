-- Reads a room's newest number, and what came after a place.
-- KEYS: the room's place, its stream.
-- ARGV: epoch and offset of the place (an empty epoch: none), count, bytes, fresh epoch (empty: change nothing).
local place = redis.call('HMGET', KEYS[1], 'e', 'n')
local epoch, offset = place[1], tonumber(place[2] or 0)
local is_behind = epoch and epoch == ARGV[1] and offset < tonumber(ARGV[2])
if ARGV[5] ~= '' then
  if not epoch or is_behind then
    epoch, offset = ARGV[5], 0
    redis.call('HSET', KEYS[1], 'e', epoch, 'n', 0, 'b', 0)
    redis.call('DEL', KEYS[2])
  end
  redis.call('PEXPIRE', KEYS[1], 604800000)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {epoch or '', string.format('%.0f', offset), string.format('%.0f', now)}
if epoch and epoch == ARGV[1] and tonumber(ARGV[2]) < offset then
  local first = string.format('%.0f-0', ARGV[2] + 1)
  local bytes = 0
  for at, entry in ipairs(redis.call('XRANGE', KEYS[2], first, '+', 'COUNT', ARGV[3])) do
    bytes = bytes + #entry[2][6]
    if at > 1 and bytes > tonumber(ARGV[4]) then break end
    found[#found + 1] = string.match(entry[1], '^%d+')
    found[#found + 1] = entry[2][2]
    found[#found + 1] = entry[2][6]
  end
end
return found
