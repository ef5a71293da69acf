// Package store is the services' Postgres. Each service has tables of its own, and reads no other's.
package store

import (
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"

	"github.com/lib/pq"

	"shop/config"
)

// Open connects, and makes the tables that are not there yet; several instances may start at once.
func Open(tables string) (*sql.DB, error) {
	environment, err := config.Load()
	if err != nil {
		return nil, err
	}
	at := environment.Database
	options := "connect_timeout=5"
	if ip := net.ParseIP(at.Host); ip != nil && ip.IsLoopback() {
		options += "&sslmode=disable" // elsewhere TLS is asked for
	}
	address := url.URL{
		Scheme: "postgres", User: url.UserPassword(at.Username, at.Password), Host: net.JoinHostPort(at.Host, strconv.Itoa(at.Port)),
		Path: at.Database, RawQuery: options,
	}
	database, err := sql.Open("postgres", address.String())
	if err != nil {
		return nil, err
	}
	database.SetMaxOpenConns(8)
	database.SetMaxIdleConns(8)
	if _, err := database.Exec("select pg_advisory_xact_lock(1); " + tables); err != nil {
		return nil, fmt.Errorf("database %s: %w", address.Redacted(), err)
	}
	return database, nil
}

// IsAway says whether an error means that there is no database to ask, rather than that it was asked something wrong.
func IsAway(err error) bool {
	var said *pq.Error
	return !errors.As(err, &said) || said.Code.Class() == "57" // it is being shut down, or started
}

// IsTaken says whether an error means that a value must be unique and is not.
func IsTaken(err error) bool {
	var said *pq.Error
	return errors.As(err, &said) && said.Code.Name() == "unique_violation"
}
