package main

import (
	"context"
	"database/sql"
	"net/http"
	"time"

	"shop/web"
)

// Order is what a user has ordered.
type Order struct {
	ID        int64     `json:"id"`
	UserID    int64     `json:"user_id"`
	Item      string    `json:"item"`
	Quantity  int64     `json:"quantity"`
	Total     int64     `json:"total"`
	CreatedAt time.Time `json:"created_at"`
}

// OrderWithUser is an order, and who has ordered.
type OrderWithUser struct {
	Order *Order `json:"order"`
	User  *User  `json:"user"`
}

// Orders are all of them.
type Orders struct {
	database *sql.DB
	users    *Users
}

const columns = "id, user_id, item, quantity, total, created_at"

func (o Orders) routes() web.Routes {
	return web.Routes{"GET /orders": o.list, "POST /orders": o.create, "GET /orders/{id}": o.show}
}

func (o Orders) list(r web.Request) (int, interface{}, error) {
	rows, err := o.database.QueryContext(r.Context(), "select "+columns+" from orders order by id desc limit 100")
	if err != nil {
		return 0, nil, err
	}
	defer rows.Close()
	orders := []*Order{}
	for rows.Next() {
		order, err := scan(rows)
		if err != nil {
			return 0, nil, err
		}
		orders = append(orders, order)
	}
	return http.StatusOK, orders, rows.Err()
}

func (o Orders) show(r web.Request) (int, interface{}, error) {
	order, err := o.withUser(r.Context(), r.ID)
	return http.StatusOK, order, err
}

func (o Orders) withUser(ctx context.Context, id int64) (*OrderWithUser, error) {
	order, err := scan(o.database.QueryRowContext(ctx, "select "+columns+" from orders where id = $1", id))
	if err == sql.ErrNoRows {
		return nil, web.Error{Status: http.StatusNotFound, Text: "Order not found"}
	}
	if err != nil {
		return nil, err
	}
	user, err := o.users.Get(ctx, order.UserID)
	if err != nil {
		return nil, err
	}
	return &OrderWithUser{order, user}, nil
}

func (o Orders) create(r web.Request) (int, interface{}, error) {
	var asked struct {
		UserID   int64 `json:"user_id"`
		Item     string
		Quantity int64
		Price    int64 // of one, in cents
	}
	if err := r.Read(&asked); err != nil {
		return 0, nil, err
	}
	if err := web.Text("item", asked.Item, 200); err != nil {
		return 0, nil, err
	}
	if asked.UserID < 1 || asked.Quantity < 1 || asked.Quantity > 10_000 || asked.Price < 1 || asked.Price > 100_000_000 {
		return 0, nil, web.Error{Status: http.StatusUnprocessableEntity, Text: "user_id, quantity and price must be positive, and not too large"}
	}
	if err := o.users.Know(r.Context(), asked.UserID); err != nil {
		return 0, nil, err
	}
	const insert = "insert into orders (user_id, item, quantity, total) values ($1, $2, $3, $4) returning " + columns
	order, err := scan(o.database.QueryRowContext(r.Context(), insert, asked.UserID, asked.Item, asked.Quantity, asked.Quantity*asked.Price))
	return http.StatusCreated, order, err
}

func scan(row interface{ Scan(...interface{}) error }) (*Order, error) {
	var order Order
	err := row.Scan(&order.ID, &order.UserID, &order.Item, &order.Quantity, &order.Total, &order.CreatedAt)
	order.CreatedAt = order.CreatedAt.UTC()
	return &order, err
}
