package main

import (
	"context"
	"database/sql"
	"net/http"
	"net/mail"
	"strings"

	"shop/store"
	"shop/web"
)

// User is one of them.
type User struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Email string `json:"email"`
}

// Users are all of them.
type Users struct{ database *sql.DB }

var errNotFound = web.Error{Status: http.StatusNotFound, Text: "User not found"}

func (u Users) routes() web.Routes {
	return web.Routes{
		"GET /users":         u.list,
		"POST /users":        u.create,
		"GET /users/{id}":    u.show,
		"PUT /users/{id}":    u.change,
		"DELETE /users/{id}": u.remove,
	}
}

// get is the user, or nil.
func (u Users) get(ctx context.Context, id int64) (*User, error) {
	return one(u.database.QueryRowContext(ctx, "select id, name, email from users where id = $1", id))
}

func one(row *sql.Row) (*User, error) {
	var user User
	err := row.Scan(&user.ID, &user.Name, &user.Email)
	if err == sql.ErrNoRows {
		return nil, nil
	}
	return &user, err
}

func (u Users) list(r web.Request) (int, interface{}, error) {
	rows, err := u.database.QueryContext(r.Context(), "select id, name, email from users order by id desc limit 100")
	if err != nil {
		return 0, nil, err
	}
	defer rows.Close()
	users := []User{}
	for rows.Next() {
		var user User
		if err := rows.Scan(&user.ID, &user.Name, &user.Email); err != nil {
			return 0, nil, err
		}
		users = append(users, user)
	}
	return http.StatusOK, users, rows.Err()
}

func (u Users) show(r web.Request) (int, interface{}, error) {
	return answer(http.StatusOK)(u.get(r.Context(), r.ID))
}

func (u Users) create(r web.Request) (int, interface{}, error) {
	user, err := read(r)
	if err != nil {
		return 0, nil, err
	}
	const insert = "insert into users (name, email) values ($1, $2) returning id, name, email"
	return answer(http.StatusCreated)(one(u.database.QueryRowContext(r.Context(), insert, user.Name, user.Email)))
}

func (u Users) change(r web.Request) (int, interface{}, error) {
	user, err := read(r)
	if err != nil {
		return 0, nil, err
	}
	const update = "update users set name = $1, email = $2 where id = $3 returning id, name, email"
	return answer(http.StatusOK)(one(u.database.QueryRowContext(r.Context(), update, user.Name, user.Email, r.ID)))
}

func (u Users) remove(r web.Request) (int, interface{}, error) {
	const remove = "delete from users where id = $1 returning id, name, email"
	user, err := one(u.database.QueryRowContext(r.Context(), remove, r.ID))
	if err == nil && user == nil {
		err = errNotFound
	}
	return http.StatusNoContent, nil, err
}

// answer is a user with this status, or why there is none.
func answer(status int) func(*User, error) (int, interface{}, error) {
	return func(user *User, err error) (int, interface{}, error) {
		switch {
		case err != nil && store.IsTaken(err):
			return 0, nil, web.Error{Status: http.StatusConflict, Text: "email is taken"}
		case err == nil && user == nil:
			return 0, nil, errNotFound
		}
		return status, user, err
	}
}

// read takes a user whom somebody describes.
func read(r web.Request) (User, error) {
	var asked struct{ Name, Email string }
	if err := r.Read(&asked); err != nil {
		return User{}, err
	}
	if err := web.Text("name", asked.Name, 100); err != nil {
		return User{}, err
	}
	address, err := mail.ParseAddress(asked.Email)
	if err != nil || address.Address != asked.Email || len(asked.Email) > 200 {
		return User{}, web.Error{Status: http.StatusUnprocessableEntity, Text: "email is no address"}
	}
	return User{Name: asked.Name, Email: strings.ToLower(asked.Email)}, nil
}
