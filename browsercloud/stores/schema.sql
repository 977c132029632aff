-- The store's schema, as its history: `-- version N` begins what version N added. A new store runs
-- all of it, an older one what it lacks, so both come out the same. What is published never changes.

-- version 1
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, -- the order of creation; never given twice
    id TEXT NOT NULL UNIQUE,
    project TEXT NOT NULL,
    status TEXT NOT NULL,
    ended_at REAL, -- seconds since 1970; NULL until it has ended
    record TEXT NOT NULL, -- JSON as on the wire; holds no token and no URL
    request TEXT NOT NULL -- JSON: what was asked for
) STRICT;
CREATE INDEX sessions_unended ON sessions (number) WHERE ended_at IS NULL;
CREATE INDEX sessions_ended ON sessions (ended_at) WHERE ended_at IS NOT NULL;

-- What a session is found by: the empty name, which every session has, and '.KEY' for its metadata.
-- Each row repeats project and status, so that every filter is one walk along one index.
CREATE TABLE labels (
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    project TEXT NOT NULL,
    status TEXT NOT NULL,
    PRIMARY KEY (number, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX labels_found ON labels (project, name, value, number);
CREATE INDEX labels_found_by_status ON labels (project, name, value, status, number);

-- How many sessions each label finds: kept by the triggers, so that nobody has to count them.
CREATE TABLE counts (
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    status TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (project, name, value, status)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER session_changed AFTER UPDATE OF status ON sessions WHEN NEW.status <> OLD.status
BEGIN
    UPDATE labels SET status = NEW.status WHERE number = NEW.number;
END;

CREATE TRIGGER session_gone AFTER DELETE ON sessions
BEGIN
    DELETE FROM labels WHERE number = OLD.number;
END;

CREATE TRIGGER label_new AFTER INSERT ON labels
BEGIN
    INSERT INTO counts VALUES (NEW.project, NEW.name, NEW.value, NEW.status, 1)
    ON CONFLICT DO UPDATE SET n = n + 1;
END;

CREATE TRIGGER label_changed AFTER UPDATE OF status ON labels
BEGIN
    INSERT INTO counts VALUES (NEW.project, NEW.name, NEW.value, NEW.status, 1)
    ON CONFLICT DO UPDATE SET n = n + 1;
    UPDATE counts SET n = n - 1 WHERE project = OLD.project AND name = OLD.name
        AND value = OLD.value AND status = OLD.status;
    DELETE FROM counts WHERE project = OLD.project AND name = OLD.name
        AND value = OLD.value AND status = OLD.status AND n = 0;
END;

CREATE TRIGGER label_gone AFTER DELETE ON labels
BEGIN
    UPDATE counts SET n = n - 1 WHERE project = OLD.project AND name = OLD.name
        AND value = OLD.value AND status = OLD.status;
    DELETE FROM counts WHERE project = OLD.project AND name = OLD.name
        AND value = OLD.value AND status = OLD.status AND n = 0;
END;

CREATE TABLE tombstones (
    project TEXT NOT NULL,
    id TEXT NOT NULL,
    buried_at REAL NOT NULL, -- seconds since 1970
    PRIMARY KEY (project, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstones_by_age ON tombstones (buried_at);

-- version 2
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE, -- SHA-256, hex
    prefix TEXT NOT NULL,
    project TEXT NOT NULL,
    created_at REAL NOT NULL, -- seconds since 1970, as the next two
    used_at REAL,
    revoked_at REAL
) STRICT, WITHOUT ROWID;

CREATE TABLE limits (
    project TEXT PRIMARY KEY,
    max_sessions INTEGER, -- NULL: as many as the server has room for
    rate INTEGER -- creates in a minute; NULL: any number
) STRICT, WITHOUT ROWID;

-- One number that tells a running server whether it has to read keys and limits again.
CREATE TABLE access (version INTEGER NOT NULL) STRICT;
INSERT INTO access VALUES (0);

CREATE TRIGGER key_new AFTER INSERT ON keys
BEGIN
    UPDATE access SET version = version + 1;
END;

CREATE TRIGGER key_revoked AFTER UPDATE OF revoked_at ON keys
BEGIN
    UPDATE access SET version = version + 1;
END;

CREATE TRIGGER limits_new AFTER INSERT ON limits
BEGIN
    UPDATE access SET version = version + 1;
END;

CREATE TRIGGER limits_changed AFTER UPDATE ON limits
BEGIN
    UPDATE access SET version = version + 1;
END;

-- version 3
ALTER TABLE sessions ADD COLUMN engine_state TEXT; -- JSON: how to find the browser; NULL before it

CREATE TABLE events (
    session INTEGER NOT NULL, -- its number in `sessions`
    number INTEGER NOT NULL, -- its place in the session's events, from 1
    at REAL NOT NULL, -- seconds since 1970
    type TEXT NOT NULL,
    details TEXT NOT NULL, -- JSON
    PRIMARY KEY (session, number)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER session_gone_with_events AFTER DELETE ON sessions
BEGIN
    DELETE FROM events WHERE session = OLD.number;
END;

-- version 4
-- A session is found by its name and its build too, under 'name' and 'build'.
INSERT INTO labels (number, name, value, project, status)
SELECT s.number, found.key, found.value, s.project, s.status
FROM sessions AS s, json_each(s.record) AS found
WHERE found.key IN ('name', 'build') AND found.type = 'text';
