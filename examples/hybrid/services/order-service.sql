create table if not exists orders (
    id int primary key auto_increment,
    user_id int not null,
    items json not null,
    total_amount int not null,
    status enum('new', 'pending', 'undoing', 'cancelled') not null default 'new',
    created_at timestamp not null default now(),
    index of_user (user_id),
    index unfinished (status, created_at)
);
