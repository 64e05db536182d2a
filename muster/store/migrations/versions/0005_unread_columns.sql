-- Written by every look at a cluster, and read by nothing: cluster.trouble says what is wrong now.
ALTER TABLE cluster DROP COLUMN trouble_since;
ALTER TABLE cluster_call DROP COLUMN last_at;
