// Package config reads config/ENVIRONMENT.json (development, if the variable says nothing).
package config

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
)

// Environment is what differs between development and production. Where other services are is not in it.
type Environment struct {
	Environment string   `json:"environment"`
	Database    Database `json:"database"`
}

// Database is a Postgres; DB_HOST, DB_PORT and DB_PASSWORD go before the file.
type Database struct {
	Host     string `json:"host"`
	Port     int    `json:"port"`
	Database string `json:"database"`
	Username string `json:"username"`
	Password string `json:"password"`
}

// Load reads the environment's file.
func Load() (*Environment, error) {
	data, err := os.ReadFile(fmt.Sprintf("config/%s.json", or("ENVIRONMENT", "development")))
	if err != nil {
		return nil, err
	}
	var config Environment
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, err
	}
	database := &config.Database
	database.Host = or("DB_HOST", database.Host)
	database.Password = or("DB_PASSWORD", database.Password)
	if database.Port, err = strconv.Atoi(or("DB_PORT", strconv.Itoa(database.Port))); err != nil {
		return nil, fmt.Errorf("DB_PORT: %w", err)
	}
	return &config, nil
}

func or(variable, otherwise string) string {
	if value := os.Getenv(variable); value != "" {
		return value
	}
	return otherwise
}
