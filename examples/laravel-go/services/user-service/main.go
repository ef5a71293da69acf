// Users: /users on a port, and user.UserService with -grpc.
package main

import (
	"flag"
	"log"

	"shop/store"
	"shop/web"
)

const tables = `create table if not exists users (
	id bigserial primary key,
	name text not null,
	email text not null unique
)`

func main() {
	port := flag.String("port", "8081", "where it listens")
	isGRPC := flag.Bool("grpc", false, "gRPC in place of HTTP")
	flag.Parse()
	database, err := store.Open(tables)
	if err != nil {
		log.Fatal(err)
	}
	users := Users{database}
	if *isGRPC {
		err = serveGRPC(*port, users)
	} else {
		err = web.Serve("user-service", *port, users.routes())
	}
	if err != nil {
		log.Fatal(err)
	}
}
