// Users (`/api/users`): who they are, their tokens, and what they may spend (`/api/credit`, which only orders ask).
package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/golang-jwt/jwt"
	"github.com/lib/pq"
	"golang.org/x/crypto/bcrypt"

	"shop/common"
)

const schema = `
create table if not exists users (
	id bigserial primary key, name text not null, email text not null unique, password text not null, role text not null default 'user',
	balance bigint not null default 1000000 check (balance >= 0));` + common.Reservations

const tokenLasts = time.Hour

type user struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Email string `json:"email"`
	Role  string `json:"role"`
}

type service struct {
	db     *sql.DB
	cache  common.Cache
	secret []byte
}

func main() {
	s := service{common.Tables(schema), common.NewCache(), []byte(common.Variable("JWT_SECRET"))}
	s.administrator()
	engine := common.Engine()
	common.Health(engine, map[string]func() error{"database": common.Answers(s.db), "redis": s.cache.Ping})
	engine.POST("/api/users/register", common.Answer(http.StatusCreated, s.register))
	engine.POST("/api/users/login", common.Answer(http.StatusOK, s.login))
	engine.GET("/api/users", common.Answer(http.StatusOK, s.list))
	engine.GET("/api/users/:id", common.Answer(http.StatusOK, s.show))
	engine.PUT("/api/users/:id", common.Answer(http.StatusOK, s.rename))
	engine.GET("/api/users/:id/balance", common.Answer(http.StatusOK, s.balance))
	common.Participant(engine, s.db, "/api/credit", take, giveBack)
	common.Step(engine, s.db, "/api/credit/charge", "/api/credit/refund", take, giveBack)
	common.Serve(engine, nil)
}

// administrator is there from the start, if ADMIN_EMAIL and ADMIN_PASSWORD say who it is.
func (s service) administrator() {
	email, password := os.Getenv("ADMIN_EMAIL"), os.Getenv("ADMIN_PASSWORD")
	if email == "" || password == "" {
		return
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	if err == nil {
		_, err = s.db.Exec("insert into users (name, email, password, role) values ('Administrator', $1, $2, 'admin') on conflict do nothing", email, string(hash))
	}
	if err != nil {
		log.Fatal(err)
	}
}

func (s service) register(c *gin.Context) (interface{}, error) {
	var asked struct {
		Name     string `json:"name" binding:"required,max=100"`
		Email    string `json:"email" binding:"required,email,max=200"`
		Password string `json:"password" binding:"required,min=8,max=72"`
	}
	if err := common.Read(c, &asked); err != nil {
		return nil, err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(asked.Password), bcrypt.DefaultCost)
	if err != nil {
		return nil, common.Fail(http.StatusBadRequest, "invalid password")
	}
	made := user{Name: asked.Name, Email: strings.ToLower(asked.Email), Role: "user"}
	err = s.db.QueryRowContext(c.Request.Context(), "insert into users (name, email, password) values ($1, $2, $3) returning id",
		made.Name, made.Email, string(hash)).Scan(&made.ID)
	var refused *pq.Error
	if errors.As(err, &refused) && refused.Code.Name() == "unique_violation" {
		return nil, common.Fail(http.StatusConflict, "email is taken")
	}
	return made, err
}

// login gives a token with the claims that the gateway goes by: sub, role and exp.
func (s service) login(c *gin.Context) (interface{}, error) {
	var asked struct {
		Email    string `json:"email" binding:"required"`
		Password string `json:"password" binding:"required"`
	}
	if err := common.Read(c, &asked); err != nil {
		return nil, err
	}
	var found user
	var hash string
	err := s.db.QueryRowContext(c.Request.Context(), "select id, name, email, role, password from users where email = $1", strings.ToLower(asked.Email)).
		Scan(&found.ID, &found.Name, &found.Email, &found.Role, &hash)
	if err != nil && err != sql.ErrNoRows {
		return nil, err
	}
	if err != nil || bcrypt.CompareHashAndPassword([]byte(hash), []byte(asked.Password)) != nil {
		return nil, common.Fail(http.StatusUnauthorized, "invalid credentials")
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": strconv.FormatInt(found.ID, 10), "role": found.Role, "exp": time.Now().Add(tokenLasts).Unix(),
	}).SignedString(s.secret)
	return gin.H{"token": token, "expires_in": int(tokenLasts.Seconds()), "user": found}, err
}

func (s service) list(c *gin.Context) (interface{}, error) {
	rows, err := s.db.QueryContext(c.Request.Context(), "select id, name, email, role from users order by id desc limit 100")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	users := []user{}
	for rows.Next() {
		var one user
		if err := rows.Scan(&one.ID, &one.Name, &one.Email, &one.Role); err != nil {
			return nil, err
		}
		users = append(users, one)
	}
	return users, rows.Err()
}

func (s service) find(c *gin.Context) (found user, err error) {
	id, err := common.ID(c)
	if err != nil {
		return found, common.Fail(http.StatusNotFound, "user not found")
	}
	err = s.cache.Remembered(fmt.Sprintf("user:%d", id), &found, func() error {
		return s.db.QueryRowContext(c.Request.Context(), "select id, name, email, role from users where id = $1", id).
			Scan(&found.ID, &found.Name, &found.Email, &found.Role)
	})
	if err == sql.ErrNoRows {
		err = common.Fail(http.StatusNotFound, "user not found")
	}
	return found, err
}

func (s service) show(c *gin.Context) (interface{}, error) { return s.find(c) }

// own is the user of the path, where that is who asks.
func (s service) own(c *gin.Context) (user, error) {
	caller, role, err := common.Caller(c)
	if err != nil {
		return user{}, err
	}
	found, err := s.find(c)
	if err == nil && found.ID != caller && role != "admin" {
		err = common.Fail(http.StatusForbidden, "another user")
	}
	return found, err
}

func (s service) rename(c *gin.Context) (interface{}, error) {
	found, err := s.own(c)
	if err != nil {
		return nil, err
	}
	var asked struct {
		Name string `json:"name" binding:"required,max=100"`
	}
	if err := common.Read(c, &asked); err != nil {
		return nil, err
	}
	_, err = s.db.ExecContext(c.Request.Context(), "update users set name = $1 where id = $2", asked.Name, found.ID)
	s.cache.Forget(fmt.Sprintf("user:%d", found.ID))
	found.Name = asked.Name
	return found, err
}

func (s service) balance(c *gin.Context) (interface{}, error) {
	found, err := s.own(c)
	if err != nil {
		return nil, err
	}
	var balance int64
	err = s.db.QueryRowContext(c.Request.Context(), "select balance from users where id = $1", found.ID).Scan(&balance)
	return gin.H{"id": found.ID, "balance": balance}, err
}

type credit struct {
	User   int64 `json:"user_id"`
	Amount int64 `json:"amount"`
}

func take(tx *sql.Tx, payload []byte) error {
	return move(tx, payload, "update users set balance = balance - $1 where id = $2 and balance >= $1 and $1 > 0", "insufficient balance")
}

func giveBack(tx *sql.Tx, payload []byte) error {
	return move(tx, payload, "update users set balance = balance + $1 where id = $2", "no such user")
}

func move(tx *sql.Tx, payload []byte, statement, refusal string) error {
	var asked credit
	if err := json.Unmarshal(payload, &asked); err != nil {
		return common.Fail(http.StatusBadRequest, "invalid payload")
	}
	result, err := tx.Exec(statement, asked.Amount, asked.User)
	if err != nil {
		return err
	}
	if count, err := result.RowsAffected(); err != nil || count == 0 {
		return common.Fail(http.StatusConflict, refusal)
	}
	return nil
}
