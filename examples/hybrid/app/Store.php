<?php
namespace App;

use PDO;
use PDOException;

/** A service's own database, which all its instances share. */
class Store
{
    private static ?PDO $database = null;

    private static function database(): PDO
    {
        return self::$database ??= self::connect(';dbname=' . self::name());
    }

    public static function name(): string
    {
        return getenv('DB_DATABASE') ?: strtr(getenv('APP_NAME'), '-', '_');
    }

    public static function connect(string $more = ''): PDO
    {
        $place = 'mysql:host=' . (getenv('DB_HOST') ?: '127.0.0.1') . ';port=' . (getenv('DB_PORT') ?: 3306) . ';charset=utf8mb4';

        return new PDO($place . $more, getenv('DB_USERNAME') ?: 'shop', getenv('DB_PASSWORD') ?: '', [
            PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
            PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC,
            PDO::ATTR_EMULATE_PREPARES => false,
            PDO::ATTR_TIMEOUT => 2,
        ]);
    }

    /** Rows of a query. A database that is away is the caller's to know; what else goes wrong is ours. */
    public static function all(string $sql, array $values = []): array
    {
        try {
            $statement = self::database()->prepare($sql);
            $statement->execute($values);

            return $statement->columnCount() ? $statement->fetchAll() : [];
        } catch (PDOException $e) {
            $code = $e->errorInfo[1] ?? $e->getCode();
            if ($code === 1062) {
                throw new Failure('It is there already', Failure::ALREADY_EXISTS);
            }
            if (in_array($code, [1040, 1053, 2002, 2003, 2006, 2013], true)) {
                error_log($e->getMessage());
                self::$database = null; // the next query connects again
                throw new Failure('The database is away', Failure::UNAVAILABLE);
            }
            throw $e;
        }
    }

    /** The first row, or null. */
    public static function one(string $sql, array $values = []): ?array
    {
        return self::all($sql, $values)[0] ?? null;
    }

    /** The id of the row that is inserted. */
    public static function insert(string $sql, array $values): int
    {
        self::all($sql, $values);

        return (int) self::database()->lastInsertId();
    }
}
