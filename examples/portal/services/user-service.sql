create table if not exists users (
    id integer primary key,
    name text not null,
    email text not null unique collate nocase,
    password text not null,
    role text not null default 'buyer',
    created_at text not null
);
create table if not exists tokens (
    digest text primary key,
    user_id integer not null references users,
    expires_at integer not null
);
