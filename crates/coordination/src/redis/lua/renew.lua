-- Renews what the id has, its lease or its place, and says what that is. Never gives it anything back that
-- it has lost; but an owner whose lease has run out is followed by the first in the queue.
-- Answers {1, token, waiting, now}: owned; {2, 0, milliseconds of the owner's lease, now}: queued; {0}: neither
local holder, token = owner()
if holder == id then
  redis.call('PEXPIRE', KEYS[1], lease)
  return {1, token, redis.call('HLEN', KEYS[3]), now}
end
if redis.call('HEXISTS', KEYS[3], id) == 0 then return {0} end
wait_on()
if not holder then
  holder, token = hand_over(0)
  if holder == id then
    redis.call('PEXPIRE', KEYS[1], lease)
    return {1, token, redis.call('HLEN', KEYS[3]), now}
  end
end
return {2, 0, lease_left(), now}
