create table if not exists products (
    id integer primary key,
    sku text not null unique,
    name text not null,
    description text not null,
    price integer not null, -- in cents
    stock integer not null,
    created_at text not null
);
create virtual table if not exists found using fts5 (name, description, content = products, content_rowid = id);
create trigger if not exists found_new after insert on products begin
    insert into found (rowid, name, description) values (new.id, new.name, new.description);
end;
create trigger if not exists found_changed after update on products begin
    insert into found (found, rowid, name, description) values ('delete', old.id, old.name, old.description);
    insert into found (rowid, name, description) values (new.id, new.name, new.description);
end;
create trigger if not exists found_gone after delete on products begin
    insert into found (found, rowid, name, description) values ('delete', old.id, old.name, old.description);
end;
