create table if not exists users (
    id int primary key auto_increment,
    name varchar(100) not null,
    email varchar(200) not null unique,
    password varchar(255) not null
);
