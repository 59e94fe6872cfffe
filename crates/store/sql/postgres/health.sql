-- Whether changes can be made here: a standby only reads.
SELECT NOT pg_is_in_recovery()
