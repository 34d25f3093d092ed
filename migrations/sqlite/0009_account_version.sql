-- Which version of the vendor's API discovery is asked for; NULL is that of the realm.
ALTER TABLE accounts ADD COLUMN api_version INTEGER;
