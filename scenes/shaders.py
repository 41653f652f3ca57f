"""The GLSL programs: one that lights surfaces, one for depth alone, one that writes numbers."""

LIT_VERTEX = """
#version 330
uniform mat4 model, camera, light;
in vec3 position, normal;
out vec3 world_position, world_normal;
out vec4 light_position;

void main() {
    vec4 world = model * vec4(position, 1.0);
    world_position = world.xyz;
    world_normal = mat3(model) * normal;
    light_position = light * world;
    gl_Position = camera * world;
}
"""

# Three point lights (Cook-Torrance with a Schlick-GGX shadowing term, the first
# with a soft shadow), a hemispherical ambient term, and on objects a reflection
# of a studio: gray floor, bright dome, two soft boxes.
LIT_FRAGMENT = """
#version 330
const float PI = 3.14159265;
uniform vec3 eye, lights[3], intensity, base;
uniform float metal;                 // 1: a metal, 0: dull
uniform float roughness;
uniform bool is_object;              // false: the ground
uniform sampler2DShadow shadow_map;
in vec3 world_position, world_normal;
in vec4 light_position;
out vec4 color;

float lit_by_first_light() {
    vec3 at = light_position.xyz / light_position.w * 0.5 + 0.5;
    at.z -= 0.0012;                  // keeps a surface from shadowing itself
    vec2 texel = 1.6 / vec2(textureSize(shadow_map, 0));
    float sum = 0.0;
    for (int i = -1; i <= 1; i++)
        for (int j = -1; j <= 1; j++)
            sum += texture(shadow_map, at + vec3(vec2(i, j) * texel, 0.0));
    return sum / 9.0;
}

float distribution(float n_dot_h, float alpha) {
    float squared = alpha * alpha;
    float d = n_dot_h * n_dot_h * (squared - 1.0) + 1.0;
    return squared / (PI * d * d);
}

vec3 studio(vec3 direction) {
    vec3 dome = mix(vec3(0.30), vec3(0.75), smoothstep(-0.05, 0.6, direction.z));
    return dome + 1.6 * smoothstep(0.80, 0.95, dot(direction, normalize(lights[0])))
                + 0.9 * smoothstep(0.82, 0.95, dot(direction, normalize(lights[1])));
}

void main() {
    vec3 n = normalize(world_normal), v = normalize(eye - world_position);
    vec3 mirror = mix(vec3(0.04), base, metal);
    float alpha = roughness * roughness, k = (alpha + 1.0) * (alpha + 1.0) / 8.0;
    float n_dot_v = max(dot(n, v), 0.05);
    vec3 sum = vec3(0.0);
    for (int i = 0; i < 3; i++) {
        vec3 l = normalize(lights[i] - world_position), h = normalize(l + v);
        float n_dot_l = max(dot(n, l), 0.0);
        vec3 fresnel = mirror + (1.0 - mirror) * pow(1.0 - max(dot(v, h), 0.0), 5.0);
        float hidden = 1.0 / ((n_dot_l * (1.0 - k) + k) * (n_dot_v * (1.0 - k) + k) * 4.0);
        float gloss = min(distribution(max(dot(n, h), 0.0), alpha) * hidden, 6.0);
        float lit = i == 0 ? lit_by_first_light() : 1.0;
        sum += intensity[i] * n_dot_l * lit
             * (base * (1.0 - 0.55 * metal) + 0.5 * fresnel * gloss);
    }
    sum += base * mix(vec3(0.20), vec3(0.34), 0.5 + 0.5 * n.z) * (1.0 - 0.4 * metal);
    if (is_object) {
        float grazing = pow(1.0 - max(dot(n, v), 0.0), 4.0);
        vec3 dull = vec3(0.02 + 0.10 * grazing);
        vec3 shiny = (base * 0.80 + 0.07) * 0.65 + 0.3 * grazing;
        sum += studio(reflect(-v, n)) * mix(dull, shiny, metal);
        sum *= mix(0.72, 1.0, smoothstep(0.0, 0.35, world_position.z));  // darker at its foot
    }
    color = vec4(pow(clamp(sum, 0.0, 1.0), vec3(1.0 / 2.2)), 1.0);
}
"""

PLAIN_VERTEX = """
#version 330
uniform mat4 model, camera;
in vec3 position;

void main() { gl_Position = camera * model * vec4(position, 1.0); }
"""

DEPTH_FRAGMENT = """
#version 330
void main() {}
"""

NUMBER_FRAGMENT = """
#version 330
uniform int number;
out uint written;

void main() { written = uint(number); }
"""
