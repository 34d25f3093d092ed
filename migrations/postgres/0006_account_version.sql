-- Which version of the vendor's API discovery is asked for; NULL is that of the realm. An older gateway beside this one asks for the
-- realm's and keeps what stands here.
ALTER TABLE accounts ADD COLUMN api_version bigint;
