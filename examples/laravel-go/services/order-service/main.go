// Orders (/orders): each is of a user, whom the user service knows.
package main

import (
	"flag"
	"log"

	"shop/store"
	"shop/web"
)

const tables = `create table if not exists orders (
	id bigserial primary key,
	user_id bigint not null,
	item text not null,
	quantity int not null,
	total bigint not null, -- in cents
	created_at timestamptz not null default now()
)`

func main() {
	port := flag.String("port", "8082", "where it listens")
	flag.Parse()
	database, err := store.Open(tables)
	if err != nil {
		log.Fatal(err)
	}
	users, err := newUsers()
	if err != nil {
		log.Fatal(err)
	}
	if err := web.Serve("order-service", *port, Orders{database, users}.routes()); err != nil {
		log.Fatal(err)
	}
}
