-- Updates a refund that was settled. Guarded by the status that was loaded.
UPDATE refunds SET {refund_state = ?3} WHERE id = ?1 AND {guard status-check: status = ?2}
