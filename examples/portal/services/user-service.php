<?php
// Users: who they are (`/api/users`), and how they show it (`/api/auth`).

use App\Store;
use Illuminate\Http\Request;

const TOKEN_SECONDS = 8 * 3600;

function user_by_id(int $id): array
{
    return Store::remembered("user:$id", fn () => Store::one('select id, name, email, role, created_at from users where id = ?', [$id])) ?? abort(404, 'User not found');
}

/** The user of the request's token, or null. */
function user_of_token(Request $request): ?array
{
    $row = Store::one(
        'select user_id from tokens where digest = ? and expires_at > ?',
        [hash('sha256', $request->bearerToken() ?? ''), time()],
    );

    return $row ? user_by_id($row['user_id']) : null;
}

return function ($router): void {
    $router->post('/api/auth/register', function (Request $request) {
        $new = valid($request, ['name' => 'required|string|max:100', 'email' => 'required|email|max:200', 'password' => 'required|string|min:8|max:72']);
        try {
            Store::all(
                'insert into users (name, email, password, created_at) values (?, ?, ?, ?)',
                [$new['name'], $new['email'], password_hash($new['password'], PASSWORD_BCRYPT), now()],
            );
        } catch (PDOException $e) {
            $e->getCode() === '23000' ? abort(409, 'Email is taken') : throw $e;
        }

        return success(user_by_id((int) Store::database()->lastInsertId()), 201);
    });

    $router->post('/api/auth/login', function (Request $request) {
        $shown = valid($request, ['email' => 'required|email', 'password' => 'required|string|max:72']);
        $user = Store::one('select id, password from users where email = ?', [$shown['email']]);
        if (!password_verify($shown['password'], $user['password'] ?? '$2y$10$' . str_repeat('.', 53))) {
            abort(401, 'Invalid credentials');
        }
        $token = bin2hex(random_bytes(32));
        Store::all('delete from tokens where expires_at <= ?', [time()]);
        Store::all('insert into tokens values (?, ?, ?)', [hash('sha256', $token), $user['id'], time() + TOKEN_SECONDS]);

        return success(['token' => $token, 'expires_in' => TOKEN_SECONDS, 'user' => user_by_id($user['id'])]);
    });

    // What the gateway asks about each bearer: 200 and the user, or 401.
    $router->post('/api/auth/validate', fn (Request $request) => response()->json(user_of_token($request) ?? abort(401, 'Invalid authentication token')));

    $router->post('/api/auth/logout', function (Request $request) {
        Store::all('delete from tokens where digest = ?', [hash('sha256', $request->bearerToken() ?? '')]);

        return success(null);
    });

    $router->get('/api/users', fn () => success(Store::all('select id, name, email, role, created_at from users order by id limit 100')));

    $router->get('/api/users/{id:[0-9]+}', fn ($id) => success(user_by_id((int) $id)));

    $router->put('/api/users/{id:[0-9]+}', function (Request $request, $id) {
        if (caller($request) !== (int) $id && $request->header('X-User-Role') !== 'admin') {
            abort(403, 'Another user\'s profile');
        }
        $new = valid($request, ['name' => 'required|string|max:100']);
        user_by_id((int) $id);
        Store::all('update users set name = ? where id = ?', [$new['name'], $id]);
        Store::forget("user:$id");

        return success(user_by_id((int) $id));
    });
};
