-- True if an entry exists exactly as written: then its whole batch is committed. Served by the primary key.
SELECT EXISTS (SELECT FROM ledger
    WHERE event_id = $1 AND seq = $2 AND type = $3 AND booking_id IS NOT DISTINCT FROM $4::uuid
      AND request_id = $5 AND at = $6)
