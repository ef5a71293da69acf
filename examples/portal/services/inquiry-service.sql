create table if not exists inquiries (
    id integer primary key,
    user_id integer not null,
    contact text not null,
    product_id integer not null,
    product text not null,
    quantity integer not null,
    message text not null,
    status text not null,
    created_at text not null
);
create index if not exists inquiries_of_user on inquiries (user_id);
