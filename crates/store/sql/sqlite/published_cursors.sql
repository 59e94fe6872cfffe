-- How far events are on a stream, all of them or those that are behind, after a given one. Walks the events.
SELECT e.id, e.seq, coalesce(p.seq, 0)
FROM events e LEFT JOIN published p ON p.event_id = e.id AND p.stream = ?1
WHERE e.id > ?2 AND (NOT ?3 OR coalesce(p.seq, 0) < e.seq)
ORDER BY e.id LIMIT ?4
