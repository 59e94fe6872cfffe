-- The cursors of a consumer at a destination, of all events or of those that are behind, after a given event.
-- Scans events. A cursor that is negative or ahead of its event counts as 0. If the event's own number is out
-- of range, the number of its last entry is read from the ledger.
SELECT e.id,
       CASE WHEN e.seq BETWEEN 1 AND 1000000000000 THEN e.seq
            ELSE (SELECT max(coalesce(max(l.seq), 0), 0) FROM ledger l WHERE l.event_id = e.id) END AS last,
       CASE WHEN c.seq BETWEEN 0 AND e.seq THEN c.seq ELSE 0 END AS saved
FROM events e LEFT JOIN cursors c ON c.consumer = ?1 AND c.event_id = e.id AND c.destination = ?2
WHERE e.id > ?3 AND length(e.id) = 16
  AND (NOT ?4 OR CASE WHEN c.seq BETWEEN 0 AND e.seq THEN c.seq ELSE 0 END < e.seq)
ORDER BY e.id LIMIT ?5
