-- Updates bookings. Guarded by the versions that were loaded: no other transaction has changed them since.
WITH written AS (
    UPDATE bookings b SET {booking_state = n}
    FROM unnest({booking_update $1}) AS n ({booking_update})
    WHERE b.id = n.id AND {guard version-check: b.version = n.loaded_version}
    RETURNING 1)
{count of written}
